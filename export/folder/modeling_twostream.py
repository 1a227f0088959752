"""twostream models for transformers, in plain PyTorch: two-stream (`local`, `tta`) and masked (`vanilla`).

Shapes: B batch, N sequence, D hidden size, V vocabulary.

A two-stream model predicts every position from all others: `logits[:, i]` does not depend on token i. So one pass gives the
pseudo-log-likelihood of a sentence, and a [MASK] at i changes nothing at i. A position that holds [MASK] gives nothing to any
other: no key, no value, no neighbour. Adjacent [MASK]s are predicted as one hidden stretch, as in training.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput, MaskedLMOutput, SequenceClassifierOutput

from .configuration_twostream import TwoStreamConfig
from .layers_twostream import Block, Embedding, Hidden, Near, SpanEnds, convolved, layer_norm


class TwoStreamPreTrainedModel(PreTrainedModel):
    config_class = TwoStreamConfig
    base_model_prefix = "model"
    _no_split_modules = ("Block",)
    _supports_sdpa = True

    def _init_weights(self, module):
        std = self.config.initializer_range
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=std)
            if getattr(module, "bias", None) is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, SpanEnds):
            nn.init.zeros_(module.table)
        elif isinstance(module, TwoStreamModel) and module.taps is not None:
            nn.init.zeros_(module.taps)


class TwoStreamModel(TwoStreamPreTrainedModel):
    """`last_hidden_state` (B, N, D): at each position a state that may see everything, its own token too. At [MASK]s, and
    from `predict` everywhere, it is a state that does not depend on the token there."""

    _auto_class = "AutoModel"  # so that save_pretrained writes this file too

    def __init__(self, config: TwoStreamConfig, add_pooling_layer: bool = False):
        super().__init__(config)
        layers, width = config.num_hidden_layers, config.hidden_size
        self.vanilla = config.architecture == "vanilla"
        self.embedding = Embedding(config)
        self.blocks = nn.ModuleList(Block(config) for _ in range(layers))
        self.near = Near(config) if config.near else None
        self.ends = SpanEnds(config) if config.span_ends else None
        self.taps = nn.Parameter(torch.zeros(2, config.taps, 2 * layers * width)) if config.taps else None
        self.final_norm = layer_norm(config, width) if config.block_norm == "pre" else nn.Identity()
        self.post_init()

    def get_input_embeddings(self):
        return self.embedding.table

    def set_input_embeddings(self, value):
        self.embedding.table = value

    def forward(
        self, input_ids=None, attention_mask=None, output_hidden_states=None, return_dict=None, **kwargs
    ) -> BaseModelOutput:
        states = self.states(input_ids, attention_mask, see_self=True)
        last = self.final_norm(states[-1])
        wanted = self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        output = BaseModelOutput(last_hidden_state=last, hidden_states=(*states[:-1], last) if wanted else None)
        return output if return_dict is not False else output.to_tuple()

    def predict(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """(B, N, D), normalised: what the head reads."""
        return self.final_norm(self.states(input_ids, attention_mask, see_self=False)[-1])

    def states(self, input_ids: Tensor, attention_mask: Tensor | None, see_self: bool) -> list[Tensor]:
        """What enters the first layer, and what each layer makes of it. (B, N, D) each."""
        if input_ids.shape[1] > self.config.max_position_embeddings:
            raise ValueError(
                f"A sequence has {input_ids.shape[1]} tokens and the model reads at most "
                f"{self.config.max_position_embeddings}; cut the text."
            )
        valid = torch.ones_like(input_ids, dtype=torch.bool) if attention_mask is None else attention_mask.bool()
        content = self.embedding(input_ids, valid)
        if self.vanilla:
            return self.masked_stream(content, Hidden(input_ids, valid, None), see_self)
        return self.query_stream(input_ids, content, valid, see_self)

    def query_stream(self, input_ids: Tensor, content: Tensor, valid: Tensor, see_self: bool) -> list[Tensor]:
        hidden, config = Hidden(input_ids, valid, self.config.mask_token_id), self.config
        query = self.embedding(torch.full_like(input_ids, config.mask_token_id), valid)
        if self.ends is not None:
            query = query + self.ends(hidden)
        if self.near is not None:
            query = query + self.near(content, hidden)
        seen = hidden.seen(config.taps)
        if see_self and config.architecture == "tta":
            seen = seen | torch.diag_embed(hidden.open)
        elif see_self:
            query = query + content.masked_fill(hidden.masked[..., None], 0.0)
        keys = torch.cat([block.key(content) for block in self.blocks], -1)
        values = torch.cat([block.value(content) for block in self.blocks], -1)
        kv = torch.cat([keys, values], -1)  # of all layers: content is the same in each
        if self.taps is not None:
            kv = convolved(kv, self.taps, hidden.open)
        states, layers = [query], len(self.blocks)
        for block, k, v in zip(self.blocks, *(x.chunk(layers, -1) for x in kv.chunk(2, -1)), strict=True):
            states.append(block(states[-1], torch.cat([k, v], -1), seen))
        return states

    def masked_stream(self, content: Tensor, hidden: Hidden, see_self: bool) -> list[Tensor]:
        x = content if self.near is None else content + self.near(content, hidden)
        seen = hidden.open[:, None, :].expand(-1, x.shape[1], -1)
        states, layers = [x], len(self.blocks)
        taps = [None] * layers
        if self.taps is not None:  # (2, taps, 2 L D), all keys before all values
            keys, values = (part.chunk(layers, -1) for part in self.taps.chunk(2, -1))
            taps = [torch.cat(pair, -1) for pair in zip(keys, values, strict=True)]
        source = x
        for i, (block, weight) in enumerate(zip(self.blocks, taps, strict=True)):
            if see_self or i <= self.config.wide_layers:
                source = states[-1]
            read = block.read(source)
            kv = torch.cat([block.key(read), block.value(read)], -1)
            states.append(block(states[-1], kv if weight is None else convolved(kv, weight, hidden.open), seen))
        return states


class TwoStreamForMaskedLM(TwoStreamPreTrainedModel):
    """`logits` (B, N, V). Two-stream: at each position the prediction from all others. Vanilla: BERT's."""

    _auto_class = "AutoModelForMaskedLM"
    _tied_weights_keys = {"decoder.weight": "model.embedding.table.weight"}  # noqa: RUF012, as transformers wants it

    def __init__(self, config: TwoStreamConfig):
        super().__init__(config)
        self.model = TwoStreamModel(config)
        narrow, dense = config.embedding_size < config.hidden_size, config.head_type == "dense"
        linear = nn.Linear(config.hidden_size, config.embedding_size, bias=config.use_bias)
        self.dense = linear if dense or narrow else None
        self.norm_out = layer_norm(config, config.embedding_size)
        self.decoder = nn.Linear(config.embedding_size, config.vocab_size)
        self.post_init()

    def get_output_embeddings(self):
        return self.decoder

    def set_output_embeddings(self, value):
        self.decoder = value

    def forward(self, input_ids=None, attention_mask=None, labels=None, return_dict=None, **kwargs) -> MaskedLMOutput:
        """labels: (B, N), -100 where nothing is asked; `loss` is their mean cross-entropy in nats."""
        x = self.model.predict(input_ids, attention_mask)
        x = x if self.dense is None else self.dense(x)
        x = F.gelu(x) if self.config.head_type == "dense" else x
        logits = self.decoder(self.norm_out(x))
        loss = None if labels is None else F.cross_entropy(logits.flatten(0, 1).float(), labels.flatten())
        output = MaskedLMOutput(loss=loss, logits=logits)
        return output if return_dict is not False else output.to_tuple()

    @torch.no_grad()
    def pseudo_log_likelihood(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """log p of each token given all others, (B, N) in nats, 0 at padding. Two-stream: one pass. Vanilla: a copy for each."""
        valid = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        if self.config.architecture != "vanilla":
            log_p = self(input_ids, valid).logits.float().log_softmax(-1)
            return log_p.gather(2, input_ids[..., None])[..., 0] * valid
        found = []
        for tokens, real in zip(input_ids, valid, strict=True):
            each = torch.eye(len(tokens), dtype=torch.bool, device=tokens.device)
            copies = tokens.expand(len(tokens), -1).masked_fill(each, self.config.mask_token_id)
            log_p = self(copies, real.expand_as(copies)).logits[each].float().log_softmax(-1)
            found.append(log_p.gather(1, tokens[:, None])[:, 0])
        return torch.stack(found) * valid


class TwoStreamForSequenceClassification(TwoStreamPreTrainedModel):
    """The mean of the states of a text without its specials, a dropout and a linear layer."""

    _auto_class = "AutoModelForSequenceClassification"

    def __init__(self, config: TwoStreamConfig):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.model = TwoStreamModel(config)
        self.dropout = nn.Dropout(config.classifier_dropout)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    def forward(
        self, input_ids=None, attention_mask=None, labels=None, return_dict=None, **kwargs
    ) -> SequenceClassifierOutput:
        states = self.model(input_ids, attention_mask).last_hidden_state
        config = self.config
        words = torch.ones_like(input_ids, dtype=torch.bool) if attention_mask is None else attention_mask.bool()
        for special in (config.pad_token_id, config.bos_token_id, config.eos_token_id, config.mask_token_id):
            words = words & (input_ids != special)
        weights = torch.where(words.any(1, keepdim=True), words.to(states.dtype), 1.0)
        pooled = (states * weights[..., None]).sum(1) / weights.sum(1, keepdim=True)
        logits = self.classifier(self.dropout(pooled))
        loss = None
        if labels is not None:
            if config.num_labels == 1:
                loss = F.mse_loss(logits[:, 0], labels.to(logits.dtype).flatten())
            elif labels.is_floating_point():
                loss = F.binary_cross_entropy_with_logits(logits, labels)
            else:
                loss = F.cross_entropy(logits, labels.flatten())
        output = SequenceClassifierOutput(loss=loss, logits=logits)
        return output if return_dict is not False else output.to_tuple()
