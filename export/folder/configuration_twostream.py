"""Configuration of an exported twostream model: `local` and `tta` (two streams) or `vanilla` (one)."""

from transformers import PretrainedConfig


class TwoStreamConfig(PretrainedConfig):
    """What decides the shape and the arithmetic of the model.

    architecture:   local, tta or vanilla.
    hidden_size, num_hidden_layers, num_attention_heads, intermediate_size, max_position_embeddings: as in BERT.
    embedding_size: width E of the token table; narrower than hidden_size it is widened by a linear layer.
    block_norm:     pre (normalise what a layer reads) or post (normalise what it leaves, as BERT).
    position_type:  rotary or learned.
    feed_forward:   gated (GEGLU) or gelu.
    head_type:      direct (norm, table) or dense (BERT's: dense layer, GELU, norm, table).
    near:           neighbours on each side from which a query starts.
    taps:           neighbours on each side that keys and values hold.
    span_ends:      whether queries are told how far the ends of what is hidden are.
    wide_layers:    vanilla: layers that carry all positions; the later ones read keys and values of the last of these.
    """

    model_type = "twostream"

    def __init__(
        self,
        architecture: str = "local",
        vocab_size: int = 4096,
        hidden_size: int = 128,
        num_hidden_layers: int = 2,
        num_attention_heads: int = 2,
        intermediate_size: int = 336,
        embedding_size: int = 128,
        max_position_embeddings: int = 512,
        block_norm: str = "pre",
        position_type: str = "rotary",
        feed_forward: str = "gated",
        head_type: str = "direct",
        use_bias: bool = True,
        near: int = 0,
        taps: int = 0,
        span_ends: bool = False,
        wide_layers: int = 0,
        hidden_dropout_prob: float = 0.0,
        classifier_dropout: float = 0.1,
        layer_norm_eps: float = 1e-6,
        initializer_range: float = 0.02,
        pad_token_id: int = 0,
        bos_token_id: int = 1,
        eos_token_id: int = 2,
        mask_token_id: int = 3,
        unk_token_id: int = 4,
        tie_word_embeddings: bool = True,
        **kwargs,
    ):
        self.architecture = architecture
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.intermediate_size = intermediate_size
        self.embedding_size = embedding_size
        self.max_position_embeddings = max_position_embeddings
        self.block_norm = block_norm
        self.position_type = position_type
        self.feed_forward = feed_forward
        self.head_type = head_type
        self.use_bias = use_bias
        self.near = near
        self.taps = taps
        self.span_ends = span_ends
        self.wide_layers = wide_layers
        self.hidden_dropout_prob = hidden_dropout_prob
        self.classifier_dropout = classifier_dropout
        self.layer_norm_eps = layer_norm_eps
        self.initializer_range = initializer_range
        self.mask_token_id = mask_token_id
        self.unk_token_id = unk_token_id
        super().__init__(
            pad_token_id=pad_token_id,
            bos_token_id=bos_token_id,
            eos_token_id=eos_token_id,
            tie_word_embeddings=tie_word_embeddings,
            **kwargs,
        )
        self.tie_word_embeddings = tie_word_embeddings
