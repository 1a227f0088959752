"""Other projects read an export and find our numbers: minicons, sentence-transformers, onnxruntime. `make test-interop`."""

from pathlib import Path

import pytest
import torch
import transformers

from data.tokenizer import Tokenizer
from eval.scoring.sentences import embed
from export import onnx
from model.batch import Batch
from tests.export.conftest import TWO_STREAM, exported, monkeypatch_session, tokenizer  # noqa: F401

SENTENCES = ["one budget and two streams", "a model of all the words", "tokens"]


def test_minicons_finds_our_scores(exported, tokenizer: Tokenizer) -> None:  # noqa: F811
    scorer = pytest.importorskip("minicons.scorer")
    if transformers.__version__.startswith("5"):
        pytest.skip(
            "minicons 0.3.39 calls batch_encode_plus, which transformers 5 has not; the other environment runs this"
        )
    model, folder = exported("local")
    theirs = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
    lm = scorer.MaskedLMScorer(str(folder), "cpu", tokenizer=theirs, trust_remote_code=True)
    found = lm.token_score(SENTENCES)
    for sentence, scored in zip(SENTENCES, found):
        ids = torch.tensor([[tokenizer.bos_id, *tokenizer.encode(sentence), tokenizer.eos_id]])
        expected = model.pseudo_log_likelihood(Batch(ids)).log_probs[0, 1:-1]
        torch.testing.assert_close(torch.tensor([value for _, value in scored]), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ("local", "tta", "vanilla"))
def test_sentence_transformers_finds_our_states(kind: str, exported, tokenizer: Tokenizer) -> None:  # noqa: F811
    library = pytest.importorskip("sentence_transformers")
    model, folder = exported(kind)
    theirs = library.SentenceTransformer(str(folder), trust_remote_code=True, device="cpu")
    expected, _ = embed(model, tokenizer, SENTENCES)
    torch.testing.assert_close(torch.tensor(theirs.encode(SENTENCES)), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", TWO_STREAM)
def test_onnx_finds_our_scores(kind: str, exported, tokenizer: Tokenizer) -> None:  # noqa: F811
    runtime = pytest.importorskip("onnxruntime")
    model, folder = exported(kind)
    onnx.write(folder, quantise=kind == "local")
    session = runtime.InferenceSession(str(folder / "model.onnx"))
    for rows, length in ((1, 1), (1, 9), (3, 30), (2, 2)):
        tokens = torch.randint(5, tokenizer.vocab_size, (rows, length))
        documents = torch.zeros(rows, length, dtype=torch.int32)
        if rows == 3:
            documents[0, 20:] = -1
        batch = Batch(tokens.masked_fill(documents < 0, tokenizer.pad_id), documents)
        given = {"input_ids": batch.tokens.numpy(), "attention_mask": (documents >= 0).long().numpy()}
        log_p, top, top_log_p = map(torch.from_numpy, session.run(list(onnx.OUTPUTS), given))
        torch.testing.assert_close(log_p, model.pseudo_log_likelihood(batch).log_probs, rtol=1e-4, atol=1e-4)
        position = torch.arange(length).expand(rows, -1)
        best = model.leave_one_out(batch, position, k=onnx.K)
        real = documents >= 0
        assert torch.equal(top[real], best.top[real])
        torch.testing.assert_close(top_log_p[real], best.log_probabilities[real], rtol=1e-4, atol=1e-4)
    if kind == "local":
        small = runtime.InferenceSession(str(folder / "model.int8.onnx"))
        near = torch.from_numpy(small.run(["log_probs"], given)[0])
        assert (near - log_p).abs().mean() < 0.3 and not torch.equal(near, log_p)


def test_a_masked_model_has_no_onnx_scorer(exported) -> None:  # noqa: F811
    _, folder = exported("vanilla")
    with pytest.raises(ValueError, match="needs a copy of the sentence for each token"):
        onnx.write(Path(folder))
