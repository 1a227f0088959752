"""Everybody's models in our evaluation: tiny random BERT, RoBERTa and ModernBERT folders, made on the spot."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from tokenizers import Tokenizer as Fast
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from eval import pairs, similarity
from eval.command import open_checkpoint
from eval.correction.doubts import doubts
from eval.finetune.train import Classifier, Recipe, longest
from eval.foreign import open_foreign
from eval.scoring.likelihood import score
from export.hf import export
from model.batch import padded
from tests.model.models import tiny_model

SENTENCES = ["the barids often see the denum, twice.", "lamid", "the gimul carries the posot.", "", "unseen: Übermut"]
KINDS = ("bert", "roberta", "modernbert")


@pytest.fixture(scope="session")
def folders(text_file: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    lines, out = text_file.read_text().splitlines(), tmp_path_factory.mktemp("foreign")
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
    made = {}
    for kind in KINDS:
        torch.manual_seed(0)
        if kind == "bert":
            tokenizer = Fast(models.WordPiece(unk_token="[UNK]"))
            tokenizer.normalizer, tokenizer.pre_tokenizer = (
                normalizers.BertNormalizer(),
                pre_tokenizers.BertPreTokenizer(),
            )
            tokenizer.decoder = decoders.WordPiece()
            names = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
            trainer = trainers.WordPieceTrainer(vocab_size=200, special_tokens=list(names.values()))
        else:
            tokenizer = Fast(models.BPE())
            tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
            tokenizer.decoder = decoders.ByteLevel()
            names = {"bos": "<s>", "pad": "<pad>", "eos": "</s>", "unk": "<unk>", "mask": "<mask>"}
            alphabet = pre_tokenizers.ByteLevel.alphabet()
            trainer = trainers.BpeTrainer(
                vocab_size=400, special_tokens=list(names.values()), initial_alphabet=alphabet
            )
        tokenizer.train_from_iterator(lines, trainer)
        begin, end = (names.get("cls") or names["bos"]), (names.get("sep") or names["eos"])
        ends = [(name, tokenizer.token_to_id(name)) for name in (begin, end)]
        tokenizer.post_processor = processors.TemplateProcessing(single=f"{begin} $A {end}", special_tokens=ends)
        fast = transformers.PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, model_max_length=64, **{f"{n}_token": t for n, t in names.items()}
        )
        if kind != "bert":
            fast.cls_token, fast.sep_token = begin, end
        own = shape | {"vocab_size": len(fast), "initializer_range": 0.3, "pad_token_id": fast.pad_token_id}
        if kind == "bert":
            model = transformers.BertForMaskedLM(transformers.BertConfig(max_position_embeddings=64, **own))
        elif kind == "roberta":
            model = transformers.RobertaForMaskedLM(transformers.RobertaConfig(max_position_embeddings=66, **own))
        else:
            ids = {"bos_token_id": 0, "eos_token_id": 2, "cls_token_id": 0, "sep_token_id": 2}
            config = transformers.ModernBertConfig(max_position_embeddings=64, **own, **ids)
            model = transformers.ModernBertForMaskedLM(config)
        made[kind] = out / kind
        model.save_pretrained(made[kind])
        fast.save_pretrained(made[kind])
    return made


@torch.no_grad()
def by_hand(folder: Path, text: str, variant: str) -> list[float]:
    """One masked copy after the other, in transformers alone."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForMaskedLM.from_pretrained(folder).eval()
    given = tokenizer(text, return_tensors="pt")
    ids, words = given["input_ids"][0], given.word_ids()
    found = []
    for i in range(1, len(ids) - 1):
        hidden = torch.zeros(len(ids), dtype=torch.bool)
        for j in range(1, len(ids) - 1):
            same = words[j] is not None and words[j] == words[i]
            hidden[j] = j == i or (same and (variant == "whole_word" or (variant == "within_word_l2r" and j > i)))
        copy = ids.masked_fill(hidden, tokenizer.mask_token_id)
        mask = torch.ones_like(copy)[None]
        found.append(float(model(input_ids=copy[None], attention_mask=mask).logits[0, i].log_softmax(-1)[ids[i]]))
    return found


@pytest.mark.parametrize("variant", ("original", "within_word_l2r", "whole_word"))
@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_those_of_masked_copies(kind: str, variant: str, folders: dict[str, Path]) -> None:
    model, tokenizer = open_checkpoint(Path(f"hf:{folders[kind]}"))
    for text, found in zip(SENTENCES, score(model, tokenizer, SENTENCES, variant, tokens=50)):
        assert found.log_probs == pytest.approx(by_hand(folders[kind], text, variant), abs=1e-4)
        assert found.passes == len(found.tokens)


@pytest.mark.parametrize("kind", KINDS)
def test_offsets_and_texts_of_tokens_build_the_sentence(kind: str, folders: dict[str, Path]) -> None:
    _, tokenizer = open_foreign(f"hf:{folders[kind]}")
    text = "the barids often see the denum, twice."
    triples = tokenizer.encode_with_offsets(text)
    assert [n for n, _, _ in triples] == tokenizer.encode(text)
    if kind != "bert":  # WordPiece leaves spaces out
        assert "".join(text[begin:end] for _, begin, end in triples) == text
        assert all(tokenizer.text_of([n]) == text[begin:end] for n, begin, end in triples)
    assert tokenizer.starts_of([text])[0].sum() == 9  # a comma and a full stop are words of their own there
    assert np.array_equal(tokenizer.starts_of([""])[0], np.zeros(0, bool))


@pytest.mark.parametrize("kind", KINDS)
def test_a_classifier_trains_and_states_are_theirs(kind: str, folders: dict[str, Path]) -> None:
    model, tokenizer = open_foreign(f"hf:{folders[kind]}")
    assert longest(model, Recipe()) == 64
    batch = padded(
        [[tokenizer.bos_id, *tokenizer.encode(t), tokenizer.eos_id] for t in SENTENCES[:3]], tokenizer.pad_id
    )
    mask = torch.ones_like(batch.tokens) if batch.documents is None else (batch.documents >= 0).long()
    expected = model.architecture.theirs.base_model(input_ids=batch.tokens, attention_mask=mask).last_hidden_state
    assert torch.equal(model.encode(batch), expected)
    classifier = Classifier(model, 2, Recipe(), tokenizer.special_ids).train()
    optimizer, losses = torch.optim.AdamW(classifier.parameters(), lr=1e-2), []
    for _ in range(15):
        losses.append(torch.nn.functional.cross_entropy(classifier(batch), torch.tensor([0, 1, 1])))
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("kind", KINDS)
def test_doubtful_tokens_are_found(kind: str, folders: dict[str, Path]) -> None:
    model, tokenizer = open_foreign(f"hf:{folders[kind]}")
    [found] = doubts(model, tokenizer, ["the barids often see the denum."], least=0.1)
    assert found and all(doubt.margin >= 0.1 for doubt in found)


def test_they_stand_in_one_table_with_ours(folders: dict[str, Path], tmp_path: Path, monkeypatch, capsys) -> None:
    rows = [{"sentence_good": "the barids see", "sentence_bad": "the barids sees"} for _ in range(3)]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    scored = "\n".join(f"{i}.0\tthe barid sees the denum\tthe lamid {'paints' * (i + 1)}" for i in range(4))
    (tmp_path / "sts.tsv").write_text("score\tsentence1\tsentence2\n" + scored)
    given = [f"hf:{folders[kind]}" for kind in KINDS]
    for module, file in ((pairs, "pairs.jsonl"), (similarity, "sts.tsv")):
        arguments = ["--checkpoints", *given, "--data", str(tmp_path / file), "--out", str(tmp_path / "out")]
        monkeypatch.setattr(sys, "argv", ["x", *arguments])
        assert module.main() == 0
    records = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_text().splitlines()]
    assert len(records) == 6 and {record["checkpoint"] for record in records} == set(given)


def test_our_own_export_scores_as_our_checkpoint(text_file: Path, tmp_path: Path) -> None:
    from data.tokenizer import Tokenizer

    tokenizer = Tokenizer.train(text_file.read_text().splitlines(), 340)
    ours = tiny_model("local", vocab_size=340, mask_id=tokenizer.mask_id)
    theirs, foreign = open_foreign(f"hf:{export(ours, tokenizer, tmp_path / 'exported')}")
    for variant in ("original", "within_word_l2r", "whole_word"):
        texts = ["the barids often see the denum", "lamid"]
        for a, b in zip(score(ours, tokenizer, texts, variant), score(theirs, foreign, texts, variant)):
            assert a.log_probs == pytest.approx(b.log_probs, abs=1e-4)


@pytest.mark.parametrize("what", ("nothing", "causal"))
def test_what_is_no_masked_model_is_refused(what: str, tmp_path: Path) -> None:
    folder = tmp_path / what
    if what == "causal":
        config = transformers.GPT2Config(n_layer=1, n_embd=8, n_head=1, vocab_size=9)
        transformers.GPT2LMHeadModel(config).save_pretrained(folder)
    with pytest.raises(ValueError, match=f"^hf:{folder}: "):
        open_foreign(f"hf:{folder}")
