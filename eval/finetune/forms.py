"""The forms that an answer takes: a class, a score, one of several choices, a span of the text.

A form makes rows of examples, says what the linear layer reads (a pooled state, or each position's) and how many numbers it
gives, turns these into a loss, and into answers.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from data.tokenizer import Tokenizer
from eval.finetune.losses import LOSSES, Loss
from eval.finetune.rows import Row, alternatives, joined
from eval.finetune.tasks import Example, Task

LONGEST_ANSWER = 48  # tokens of a span


class Form:
    """A class: the softmax of `outputs` numbers from the pooled state."""

    by_position = False

    def __init__(self, task: Task, tokenizer: Tokenizer, longest: int, loss: str = "ce", apart: bool = False) -> None:
        self.task, self.tokenizer, self.longest, self.loss_name, self.apart = task, tokenizer, longest, loss, apart
        self.outputs = len(task.labels)

    def rows(self, examples: Sequence[Example]) -> list[Row]:
        """At least one for each example, in order."""
        texts = [alternatives(example) for example in examples]
        if self.apart:  # each text of a pair is a sequence of its own
            texts = [[(text,) for text in one] for [one] in texts]
        ids = iter(self.tokenizer.encode_batch([text for each in texts for one in each for text in one]))
        found = []
        for number, (example, each) in enumerate(zip(examples, texts)):
            parts = [joined([next(ids) for _ in one], self.tokenizer, self.longest) for one in each]
            cut = sum(lost for _, lost in parts)
            found.append(Row(tuple(tokens for tokens, _ in parts), example.label, cut, number))
        return found

    def prepare(self, rows: Sequence[Row], device: torch.device) -> None:
        """Count the training rows of each class, for losses that ask."""
        counts = torch.bincount(torch.tensor([row.label for row in rows]), minlength=self.outputs)
        self.class_loss: Loss = LOSSES[self.loss_name](counts.to(device))

    def loss(self, outputs: Tensor, rows: Sequence[Row]) -> Tensor:
        """outputs: (sequences, outputs), or (sequences, N, outputs) by position, float32."""
        return self.class_loss(outputs, torch.tensor([row.label for row in rows], device=outputs.device))

    def read(self, outputs: Tensor, rows: Sequence[Row]) -> list[Any]:
        """An answer for each row."""
        return outputs.argmax(-1).tolist()

    def merge(self, rows: Sequence[Row], answers: Sequence[Any], examples: Sequence[Example]) -> list[Any]:
        """An answer for each example."""
        return list(answers)


class Score(Form):
    """A number, by least squares."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.outputs = 1

    def prepare(self, rows: Sequence[Row], device: torch.device) -> None:
        pass

    def loss(self, outputs: Tensor, rows: Sequence[Row]) -> Tensor:
        return F.mse_loss(outputs[:, 0], torch.tensor([float(row.label) for row in rows], device=outputs.device))

    def read(self, outputs: Tensor, rows: Sequence[Row]) -> list[Any]:
        return outputs[:, 0].tolist()


class Choice(Score):
    """A number for each choice, each read with the text; the softmax over a row's choices."""

    def by_row(self, outputs: Tensor, rows: Sequence[Row]) -> Tensor:
        """(sequences, 1) -> (rows, most choices), -inf where a row has fewer."""
        groups = outputs[:, 0].split([len(row.tokens) for row in rows])
        return torch.nn.utils.rnn.pad_sequence(groups, batch_first=True, padding_value=float("-inf"))

    def loss(self, outputs: Tensor, rows: Sequence[Row]) -> Tensor:
        labels = torch.tensor([row.label for row in rows], device=outputs.device)
        return F.cross_entropy(self.by_row(outputs, rows), labels)

    def read(self, outputs: Tensor, rows: Sequence[Row]) -> list[Any]:
        return self.by_row(outputs, rows).argmax(-1).tolist()


class Span(Form):
    """The first and the last position of the answer, a softmax over positions for each (Devlin et al. 2019, section 4.2).

    A passage that does not fit is read in windows that overlap by half. Where a window does not hold the answer, both are BOS.
    Read: the pair with the highest product of probabilities, over all windows; no pair is longer than LONGEST_ANSWER.
    """

    by_position = True

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.outputs = 2

    def rows(self, examples: Sequence[Example]) -> list[Row]:
        found, known = [], {}
        for number, example in enumerate(examples):
            question, passage = example.texts
            if passage not in known:
                known[passage] = self.tokenizer.encode_with_offsets(passage)
            asked = self.tokenizer.encode(question)
            cut = max(0, len(asked) - self.longest // 2)
            head = [self.tokenizer.bos_id, *asked[: len(asked) - cut], self.tokenizer.eos_id]
            room = self.longest - len(head) - 1
            tokens, step = known[passage], max(1, room // 2)
            for start in range(0, max(1, len(tokens) - room + step), step):
                window = tokens[start : start + room]
                ids = [*head, *(token for token, _, _ in window), self.tokenizer.eos_id]
                offsets = (len(head), [(begin, end) for _, begin, end in window])
                found.append(Row((ids,), self._positions(example, offsets), cut if start == 0 else 0, number, offsets))
        return found

    @staticmethod
    def _positions(example: Example, offsets: tuple[int, list[tuple[int, int]]]) -> tuple[int, int] | None:
        if example.label is None:
            return None
        text, begin = example.label[0]
        first, parts = offsets
        inside = [i for i, (b, e) in enumerate(parts) if e > begin and b < begin + len(text)] if begin >= 0 else []
        whole = inside and parts[inside[0]][0] <= begin and parts[inside[-1]][1] >= begin + len(text)
        return (first + inside[0], first + inside[-1]) if whole else (0, 0)

    def prepare(self, rows: Sequence[Row], device: torch.device) -> None:
        pass

    @staticmethod
    def log_probabilities(outputs: Tensor, rows: Sequence[Row]) -> Tensor:
        """(rows, N, 2) over BOS and the positions of the passage."""
        allowed = torch.zeros(outputs.shape[:2], dtype=torch.bool)
        allowed[:, 0] = True
        for i, row in enumerate(rows):
            first, parts = row.offsets
            allowed[i, first : first + len(parts)] = True
        return outputs.masked_fill(~allowed[..., None].to(outputs.device), float("-inf")).log_softmax(1)

    def loss(self, outputs: Tensor, rows: Sequence[Row]) -> Tensor:
        positions = torch.tensor([row.label for row in rows], device=outputs.device)  # (rows, 2)
        return -self.log_probabilities(outputs, rows).gather(1, positions[:, None]).mean()

    def read(self, outputs: Tensor, rows: Sequence[Row]) -> list[Any]:
        found = []
        for row, log_p in zip(rows, self.log_probabilities(outputs, rows)):
            first, parts = row.offsets
            if not parts:
                found.append((float("-inf"), 0, 0))
                continue
            own = log_p[first : first + len(parts)]
            pairs = own[:, None, 0] + own[None, :, 1]  # (first, last)
            near = torch.ones_like(pairs, dtype=torch.bool).triu() & ~torch.ones_like(pairs).triu(LONGEST_ANSWER).bool()
            best = int(pairs.masked_fill(~near, float("-inf")).argmax())
            begin, last = divmod(best, len(parts))
            found.append((float(pairs[begin, last]), parts[begin][0], parts[last][1]))
        return found

    def merge(self, rows: Sequence[Row], answers: Sequence[Any], examples: Sequence[Example]) -> list[Any]:
        best: list[tuple[float, int, int]] = [(float("-inf"), 0, 0)] * len(examples)
        for row, answer in zip(rows, answers):
            best[row.example] = max(best[row.example], answer)
        return [example.texts[1][begin:end].strip() for example, (_, begin, end) in zip(examples, best)]


FORMS: dict[str, type[Form]] = {"class": Form, "score": Score, "choice": Choice, "span": Span}
