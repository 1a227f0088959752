"""A SentencePiece model as the tokenizer.json of `tokenizers`, built by hand: the stock converters normalise, ours does not.

The same ids on every text that neither begins with a space or U+2581 nor spells a special token. On others: a space at the
beginning counts once less, and a special that is spelt out becomes the special, which fill-mask wants. Where two segmentations
have scores that differ by less than rounding either may come out.
"""

from typing import Any

from sentencepiece import sentencepiece_model_pb2
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors

from data.vocabulary import Vocabulary

SPACE = "▁"


def converted(model: bytes, vocabulary: Vocabulary) -> Tokenizer:
    """model: the content of a .model file. Raises ValueError for one that is not a unigram model with bytes to fall back on."""
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(model)
    if proto.trainer_spec.model_type != 1 or not proto.trainer_spec.byte_fallback:
        raise ValueError(
            "This tokenizer is not a unigram model with byte fallback; only such a model can become a tokenizer.json."
        )
    if proto.normalizer_spec.precompiled_charsmap or proto.normalizer_spec.remove_extra_whitespaces:
        raise ValueError("This tokenizer normalises its text (train it with identity); a tokenizer.json would not.")
    pieces = [(piece.piece, piece.score) for piece in proto.pieces]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=vocabulary.unk_id, byte_fallback=True))
    dummy = "first" if proto.normalizer_spec.add_dummy_prefix else "never"
    # Text that spells the name of a byte's piece is not a byte. SentencePiece knows that; a Unigram has to be told.
    spelt = pre_tokenizers.Split(Regex("<(?=0x[0-9A-F]{2}>)"), "merged_with_previous")
    spaces = pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme=dummy, split=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([spaces, spelt])
    names = special_names(model, vocabulary)
    # The space before a [MASK] belongs to it, as it does to a word.
    tokenizer.add_special_tokens(
        [AddedToken(name, special=True, normalized=False, lstrip=kind == "mask") for kind, name in names.items()]
    )
    bos, eos = names["bos"], names["eos"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A {eos}",
        pair=f"{bos} $A {eos} $B {eos}",
        special_tokens=[(bos, vocabulary.bos_id), (eos, vocabulary.eos_id)],
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return tokenizer


def special_names(model: bytes, vocabulary: Vocabulary) -> dict[str, str]:
    """By kind (pad, bos, eos, mask, unk) how the special is spelt."""
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(model)
    return {
        kind: proto.pieces[getattr(vocabulary, f"{kind}_id")].piece for kind in ("pad", "bos", "eos", "mask", "unk")
    }


def settings(names: dict[str, str], longest: int) -> dict[str, Any]:
    """tokenizer_config.json, which transformers 4 and 5 read alike."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **{f"{kind}_token": name for kind, name in names.items()},
        "cls_token": names["bos"],
        "sep_token": names["eos"],
        "model_input_names": ["input_ids", "attention_mask"],
        "model_max_length": longest,
        "clean_up_tokenization_spaces": False,
    }
