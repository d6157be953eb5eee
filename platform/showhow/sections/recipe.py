"""The model and the recipe: what is fine-tuned and all hyperparameters of one fine-tuning. Pure and typed.

Fields that a study file omits have the defaults here; `showhow plan` prints them all and every run records them.
"""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import BaseModel, Field, model_validator

from showhow.kinds import ByKind, Catalogue
from showhow.sections.faults import Fault, refuse
from showhow.sections.scalars import STRICT, Positive


class Recipe(BaseModel):
    """All hyperparameters of one fine-tuning.

    batch_size: examples per optimizer step; micro_batch_size: examples per forward pass (gradients are accumulated
    until batch_size; None: the full batch at once). max_examples: training examples seen in total, with repeats
    (None: the study's [budget] ends a run). batching: `grouped` puts examples of similar length together,
    `packed` joins several in one row without attention between them (causal models only). precision: `auto` is
    bfloat16 autocast where the processor supports it, else float32; `float16` is for GPUs without bfloat16.
    """

    model_config = STRICT

    batch_size: Positive = 32
    micro_batch_size: Positive | None = None
    max_examples: Positive | None = None
    learning_rate: Annotated[float, Field(gt=0.0, le=1.0)]
    warmup_examples: Annotated[int, Field(ge=0)] = 0
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    weight_decay: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    beta_1: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.9
    beta_2: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.999
    gradient_clip: Annotated[float, Field(gt=0.0)] = 1.0
    batching: Literal["grouped", "packed"] = "grouped"
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"

    @property
    def total_examples(self) -> int:
        """max_examples. Raises ValueError if it is not set, because a budget in other units ends the run."""
        if self.max_examples is None:
            raise ValueError("max_examples is not set; the budget ends the run")
        return self.max_examples

    @model_validator(mode="after")
    def _sizes_fit(self) -> "Recipe":
        refuse(self._misfits())
        return self

    def _misfits(self) -> Iterator[Fault]:
        batch, micro, examples = self.batch_size, self.micro_batch_size, self.max_examples
        if micro and batch % micro:
            yield Fault("micro_batch_size", f"batch_size = {batch} is not a multiple of micro_batch_size = {micro}")
        if examples is not None and examples < batch:
            yield Fault("max_examples", f"got {examples}, which is less than one batch (batch_size = {batch})")
        if examples is not None and self.warmup_examples >= examples:
            yield Fault(
                "warmup_examples", f"got {self.warmup_examples}, which leaves nothing of max_examples = {examples}"
            )


_OF_A_LLAMA = ("initializer_range", "rope_theta", "tie_embeddings")


class ScratchModel(BaseModel):
    """A model built from a Hugging Face configuration, with random weights and a tokenizer made of the task's symbols.

    heads: attention heads (default: one per 32 of hidden_size); mlp_size: width of the feed-forward part (default: 4 x
    hidden_size). A t5 has `layers` layers in the encoder and as many in the decoder. The last three are a llama's:
    rope_theta is the base of the rotary positions (short texts learn faster with a small one), and with tie_embeddings
    input and output embeddings share one matrix, as they always do in a t5.
    """

    model_config = STRICT

    kind: Literal["scratch"] = "scratch"
    architecture: Literal["llama", "t5"]
    hidden_size: Annotated[int, Field(ge=8, le=16_384)]
    layers: Annotated[int, Field(ge=1, le=200)]
    heads: Positive | None = None
    mlp_size: Positive | None = None
    initializer_range: Annotated[float, Field(gt=0.0, le=1.0)] = 0.02
    rope_theta: Annotated[float, Field(gt=1.0)] = 10_000.0
    tie_embeddings: bool = True

    @model_validator(mode="after")
    def _sizes_fit(self) -> "ScratchModel":
        fields = type(self).model_fields if self.architecture == "t5" else {}
        refuse(
            Fault(name, f"is a setting of llama models, and without effect in a {self.architecture}; leave it out")
            for name in fields
            if name in _OF_A_LLAMA and getattr(self, name) != fields[name].default
        )
        if self.hidden_size % (2 * self.attention_heads):
            message = f"got {self.hidden_size}, which cannot be split into {self.attention_heads} heads of even width"
            refuse([Fault("hidden_size", f"{message}; let hidden_size be a multiple of 2 x heads")])
        return self

    @property
    def attention_heads(self) -> int:
        """Attention heads in each layer."""
        return self.heads or max(1, self.hidden_size // 32)

    @property
    def feed_forward_size(self) -> int:
        """Width of the feed-forward part."""
        return self.mlp_size or 4 * self.hidden_size

    def parameter_count(self, vocabulary: int) -> int:
        """Return the number of trainable parameters: no biases, gated (llama) or plain (t5) MLP.

        T5 counts as in Raffel et al. (arXiv 1910.10683), with 32 relative-position buckets a head in each stack.
        """
        size, mlp, norms = self.hidden_size, self.feed_forward_size, self.hidden_size
        embeddings = vocabulary * size * (1 if self.tie_embeddings else 2)
        if self.architecture == "llama":
            layer = 4 * size * size + 3 * size * mlp + 2 * norms
            return embeddings + self.layers * layer + norms
        encoder = 4 * size * size + 2 * size * mlp + 2 * norms
        decoder = 8 * size * size + 2 * size * mlp + 3 * norms
        return embeddings + self.layers * (encoder + decoder) + 2 * norms + 2 * 32 * self.attention_heads


class PretrainedModel(BaseModel):
    """A model and its tokenizer by Hugging Face name or local folder; safetensors only, no code from the model's
    author.

    quantise: frozen weights are loaded in 8 or 4 bits (bitsandbytes, on GPUs; with an adapter only). questions: `chat`
    formats them with the tokenizer's chat template, `plain` leaves them unchanged, `auto` uses the template if there is
    one."""

    model_config = STRICT

    kind: Literal["pretrained"]
    name: Annotated[str, Field(min_length=1)]
    quantise: Literal["none", "8bit", "4bit"] = "none"
    questions: Literal["auto", "plain", "chat"] = "auto"


ModelSpec = Annotated[ScratchModel | PretrainedModel, Field(discriminator="kind")]
MODEL_KINDS: Catalogue[BaseModel] = Catalogue(
    (ScratchModel, PretrainedModel), {"scratch": ScratchModel, "pretrained": PretrainedModel}
)
ModelSpecs = Annotated[ModelSpec | dict[str, ModelSpec], ByKind(MODEL_KINDS, are_named=True)]
