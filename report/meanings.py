"""What the numbers of a report mean: shown under its tables."""

MEANINGS = (
    (
        "leave-one-out NLL",
        "mean negative log-likelihood, in nats, of held-out tokens, each predicted from all others of its window; the same "
        "tokens for every model, from documents that no setting was chosen on. Lower is better. After ±: the standard "
        "deviation between seeds; s.e.: the standard error, clustered by document. It compares models that share a "
        "tokenizer, and no others. A token's neighbours may be pieces of its own word, so read it beside the whole words.",
    ),
    (
        "behind the best",
        "the difference to the best model on the same tokens, or words; after ±: half of its 95% interval, which holds the "
        "spread between documents and, with several seeds, between these (t distribution). The best is the best on the dev "
        "half of the held-out text.",
    ),
    ("accuracy", "how often the most probable token is the true one."),
    (
        "whole words, bits a character",
        "random words with all of their tokens hidden together, the sum of these tokens' negative log-likelihood over the "
        "word's characters: this one compares tokenizers too. Where words are not written with spaces there is none.",
    ),
    (
        "by the chain rule",
        "the same with each token of the word predicted from the word's tokens before it too: the probability of the word.",
    ),
    ("words right", "the share of these words of which every token, all hidden together, was the most probable one."),
    (
        "equals vanilla at",
        "the share of the budget with which this model, annealed to that end, is as good as the best vanilla model with all "
        "of it (from contestants named with budget=...). In brackets, where that was not measured: the share at which its "
        "*curve* passed vanilla's final value. A curve whose rate has not come to its end is too high, so this share is "
        "too large, if anything.",
    ),
    (
        "tokens/s, predicted tokens/s",
        "input tokens trained on in a second, and those of them that gave a loss (for vanilla, the masked ones). "
        "Time is training alone: data, forward, backward, optimiser.",
    ),
    (
        "of matmul rate",
        "training FLOP/s over what this machine reached in matrix multiplication of the same precision just before.",
    ),
    (
        "one-piece word, first piece, later piece; copied",
        "tokens by their position in their word; and whether their two neighbours stand together around another position of the "
        "window, from where what stands between them can be copied.",
    ),
    ("memory", "weights, gradients, optimiser states and saved activations of one step, counted."),
    ("passes for N", "forward passes for the pseudo-log-likelihood of a sentence of N tokens."),
)
