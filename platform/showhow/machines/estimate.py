"""The peak memory of one device of a run, by its parts: an estimate from formulas. Pure.

AdamW in mixed precision takes 16 bytes per trained parameter, which ZeRO partitions over n devices (Rajbhandari et al.,
arXiv 1910.02054, sections 3.1 and 5); deepspeed_config.py lists where the 16 bytes are at each precision. Activations
are counted layer by layer as in Korthikanti et al. (arXiv 2205.05198, section 4.1), with the tensors that llama and t5
save here: see `_Saved`. docs/performance.md compares the total with measured peaks.
"""

from dataclasses import asdict, dataclass, replace
from typing import NamedTuple

from showhow.machines import machine
from showhow.machines.deepspeed_config import deepspeed_config
from showhow.machines.layout import Layout
from showhow.models.lengths import Lengths
from showhow.models.sizes import ModelSizes, held_bits
from showhow.sections.resources import Offload
from showhow.sections.trial import Trial

# Measured resident memory of a process that has imported its libraries and taken a step; what DeepSpeed and peft add.
# For a GPU, not measured here: the context and the libraries of CUDA.
_PROCESS, _WITH_DEEPSPEED, _WITH_ADAPTER, _ON_A_GPU = 500_000_000, 150_000_000, 40_000_000, 600_000_000
# Measured: on CPUs the heap of the C library grows to this multiple of the memory in use, as glibc before 2.38 does not
# reuse a freed block for an aligned one of the same size; the many short-lived tensors of recomputation waste more.
_HEAP, _HEAP_RECOMPUTED = 1.2, 2.1
# Bits per weight of the scales of quantised weights: 4 bits in blocks of 64 (QLoRA, arXiv 2305.14314, section 3, with
# the scales quantised), 8 bits by rows (arXiv 2208.07339).
_SCALE_BITS = {4: 0.127, 8: 0.01}
_EXTRA_TOKENS = 4  # a reply may be this much longer than a target (training/evaluate.py)
# Above this number of parameters each one has its own gradient, which is freed after each step (training/engine.py).
_END_TO_END = 100_000_000


@dataclass(frozen=True)
class Memory:
    """Peak bytes on one device. weights: with their copies in the computing type. replies: what evaluation needs beyond
    the memory that training has freed. process: the program itself. host: what a GPU offloads to the machine's
    memory."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    buckets: int
    replies: int
    process: int
    host: int = 0

    @property
    def parts(self) -> dict[str, int]:
        """Bytes on the device, by what they are for."""
        return {name: size for name, size in asdict(self).items() if name != "host"}

    @property
    def total(self) -> int:
        """Bytes on the device."""
        return sum(self.parts.values())


@dataclass(frozen=True)
class _Load:
    """What a model computes at once. rows: of the batch; prompt, target: tokens of each; number: bytes of a number in
    products; stream: bytes of a number of the hidden states between layers. is_lean: trained by
    training/cpu/loss.py."""

    sizes: ModelSizes
    rows: int
    prompt: int
    target: int
    number: int
    stream: int
    is_lean: bool
    on_gpu: bool

    @property
    def is_frozen(self) -> bool:
        """True with an adapter."""
        return self.sizes.trained < self.sizes.parameters

    @property
    def is_half(self) -> bool:
        """True where the trained weights themselves have 16 bits: DeepSpeed's float16."""
        return self.stream == 2 and not self.is_frozen

    @property
    def own(self) -> int:
        """Bytes of a trained weight."""
        return 2 if self.is_half else 4


def memory_of(trial: Trial, sizes: ModelSizes, lengths: Lengths, layout: Layout, on_gpu: bool) -> Memory:
    """Estimate the memory of one device of a run, when its longest rows are in one batch."""
    load = _load(trial, sizes, lengths, layout, on_gpu)
    weights, gradients, optimizer, host = _states(trial, load, layout)
    heap = 1.0 if on_gpu else _HEAP_RECOMPUTED if layout.recompute_activations else _HEAP
    activations, logits = round(heap * _activations(load, layout)), round(heap * _logits(load))
    is_one_pass = trial.recipe.batch_size <= layout.devices * layout.micro_batch_size
    if is_one_pass and sizes.trained > _END_TO_END and not layout.needs_deepspeed:
        activations = max(0, activations - gradients)  # gradients are allocated while activations are freed
    replying = replace(load, rows=min(layout.asked_at_once or trial.evaluation.batch_size, trial.data.eval_examples))
    process = _PROCESS + _WITH_DEEPSPEED * layout.needs_deepspeed + _WITH_ADAPTER * load.is_frozen
    return Memory(
        weights=weights,
        gradients=gradients,
        optimizer=optimizer,
        activations=activations,
        logits=logits,
        buckets=_buckets(trial, load, layout),
        replies=max(0, _replies(replying) - activations - logits),
        process=_ON_A_GPU if on_gpu else process,
        host=host,
    )


def _load(trial: Trial, sizes: ModelSizes, lengths: Lengths, layout: Layout, on_gpu: bool) -> _Load:
    number = 2 if machine.computes_narrow(trial.recipe.precision, on_gpu) else 4
    is_half = trial.recipe.precision == "float16" and layout.needs_deepspeed and on_gpu
    return _Load(
        sizes=sizes,
        rows=layout.micro_batch_size,
        prompt=lengths.longest_prompt,
        target=lengths.longest_target,
        number=number,
        stream=number if is_half or sizes.trained < sizes.parameters else 4,
        # Partitioned weights, and recomputation, are left to transformers.
        is_lean=sizes.has_fast_path and not (on_gpu or layout.recompute_activations or layout.zero_stage == 3),
        on_gpu=on_gpu,
    )


def _states(trial: Trial, load: _Load, layout: Layout) -> tuple[int, int, int, int]:
    """Return the bytes of weights, gradients and optimizer on the device, as the layout partitions and offloads them,
    and the bytes in the machine's memory that a GPU offloads."""
    trained, stage = load.sizes.trained, layout.zero_stage
    shared = [1 / layout.devices if stage >= least else 1.0 for least in (1, 2, 3)]
    # From stage 1 on DeepSpeed updates a float32 copy, except at stage 3 without half precision, whose part is float32.
    copy = 4 if load.is_half or stage in (1, 2) else 0
    held = (load.own * trained + _frozen(trial, load)) * shared[2]
    weights, away = _placed(held, layout.offload_parameters, load.on_gpu)
    optimizer, further = _placed((copy + 8) * trained * shared[0], layout.offload_optimizer, load.on_gpu)
    return (
        round(weights + _copies(load)),
        round(load.own * trained * shared[1]),
        round(optimizer),
        round(away + further),
    )


def _placed(held: float, offload: Offload, on_gpu: bool) -> tuple[float, float]:
    """Return how many of `held` bytes stay on the device, and how many a GPU offloads to the machine's memory."""
    if offload == "nvme":
        return 0.0, 0.0
    return (0.0, held) if offload == "cpu" and on_gpu else (held, 0.0)


def _frozen(trial: Trial, load: _Load) -> float:
    """Bytes of the weights that an adapter leaves frozen; embeddings are never quantised."""
    sizes, bits = load.sizes, held_bits(trial.model)
    if not load.is_frozen:
        return 0.0
    if bits is None:
        return load.number * sizes.parameters
    return (sizes.parameters - sizes.embedded) * (bits + _SCALE_BITS[bits]) / 8 + load.number * sizes.embedded


def _copies(load: _Load) -> int:
    """Bytes of the copies of weights in the computing type, where they are stored in another one (autocast casts each
    once and caches it until the backward pass); in float32 the lean layers join matrices that are read together."""
    sizes = load.sizes
    if load.number == 2:
        return 0 if load.stream == 2 else 2 * sizes.multiplied
    turned = sizes.layers * sizes.hidden * sizes.inner * (sizes.family == "llama")
    return 4 * load.is_lean * (_joined(sizes) + turned + 3 * sizes.encoder_layers * sizes.hidden * sizes.inner)


def _joined(sizes: ModelSizes) -> int:
    """Numbers in a decoder's matrices that are read together: queries, keys and values; gate and up."""
    attention = (5 if sizes.encoder_layers else 3) * sizes.hidden * sizes.inner
    return sizes.layers * (attention + sizes.is_gated * 2 * sizes.hidden * sizes.mlp)


def _buckets(trial: Trial, load: _Load, layout: Layout) -> int:
    """Bytes of the communication buffers: DeepSpeed's two buckets of gradients, and the weights that stage 3 has
    gathered: all up to its bound, as they are needed again in the backward pass."""
    sizes, stage = load.sizes, layout.zero_stage
    if not layout.needs_deepspeed:
        return 0
    if stage == 0:
        return load.own * sizes.trained * (layout.devices > 1)
    zero = deepspeed_config(trial.recipe, layout, "float32", sizes.trained)["zero_optimization"]
    buckets = (1 + bool(zero.get("overlap_comm"))) * min(sizes.trained, int(zero["reduce_bucket_size"]))
    gathered = min(sizes.parameters, int(zero.get("stage3_max_live_parameters", 1e9))) if stage == 3 else 0
    return load.own * (buckets + gathered)


class _Saved(NamedTuple):
    """Bytes that the forward pass saves for the backward pass. norm: for each number of the stream at a norm; read:
    again for each product that reads the normed stream; unit: for each unit of the feed-forward part; score: for each
    attention score. Queries, keys, values and results are saved in the computing type. Measured by the storages of
    saved tensors, to 1%."""

    norm: float
    read: float
    unit: float
    score: float


def _saved(load: _Load) -> _Saved:
    sizes, number, narrow = load.sizes, load.number, load.number == 2
    unit = (4 if sizes.is_gated else 1) * number
    if load.is_lean:
        return _Saved(6, 0, unit, 6) if narrow else _Saved(8, 0, unit, 4)
    is_t5, dropped = sizes.family == "t5", number * sizes.has_dropout
    if is_t5 and sizes.is_gated:  # an approximate GELU in single operations
        unit *= 2
    return _Saved(
        norm=dropped + (12 if not narrow else 10 if is_t5 and load.stream == 2 else 8),
        read=2 * (narrow and not load.is_half),
        unit=unit + 2 * dropped + 2 * (narrow and load.is_frozen),  # peft gives each adapter its own copy
        score=_score(load) + 2 * dropped,
    )


def _score(load: _Load) -> float:
    """SDPA saves no scores but a mask, one for all heads; T5's mask contains a learned bias, so one for each head."""
    if load.on_gpu or not load.sizes.has_fast_path:
        return load.number if load.sizes.family == "t5" else load.number / load.sizes.heads
    return 6 if load.number == 2 else 4  # eager


def _activations(load: _Load, layout: Layout) -> int:
    """Bytes saved for the backward pass, and the temporary tensors of the largest layer. With recomputation each layer
    saves only its input, and one layer at a time the rest."""
    sizes, saved = load.sizes, _saved(load)
    if sizes.encoder_layers:
        decoder = _layer(load, saved, load.target) + _crossing(load, saved)
        encoder = _layer(load, saved, load.prompt)
        stacks = [(sizes.layers, load.target, decoder), (sizes.encoder_layers, load.prompt, encoder)]
    else:
        length = load.prompt + load.target
        stacks = [(sizes.layers, length, _layer(load, saved, length))]
    passing = _passing(load, max(length for _, length, _ in stacks)) + _biases(load)
    if not layout.recompute_activations:
        return round(sum(layers * layer for layers, _, layer in stacks) + passing)
    read = load.rows * load.stream * sizes.hidden * sum(layers * length for layers, length, _ in stacks)
    return round(read + max(layer for _, _, layer in stacks) + passing)


def _layer(load: _Load, saved: _Saved, length: int) -> float:
    """Bytes of self-attention and feed-forward, each after its norm, over rows of `length` tokens."""
    sizes = load.sizes
    norms = 2 * saved.norm + saved.read * (3 + (2 if sizes.is_gated else 1))
    stream = norms * sizes.hidden + 4 * load.number * sizes.inner + saved.unit * sizes.mlp
    return load.rows * length * (stream + saved.score * sizes.heads * length)


def _crossing(load: _Load, saved: _Saved) -> float:
    """Bytes of a decoder layer's attention to the encoder's outputs."""
    sizes, own, other = load.sizes, load.rows * load.target, load.rows * load.prompt
    queries = own * ((saved.norm + saved.read) * sizes.hidden + 2 * load.number * sizes.inner)
    keys = other * (2 * saved.read * sizes.hidden + 2 * load.number * sizes.inner)
    return queries + keys + saved.score * own * load.prompt * sizes.heads


def _biases(load: _Load) -> int:
    """Bytes of the position biases and masks that T5 adds to its scores, made once for all layers."""
    if load.sizes.family != "t5":
        return 0
    pairs = load.prompt**2 + load.target**2 + load.target * load.prompt
    return 4 * load.rows * load.sizes.heads * pairs


def _passing(load: _Load, length: int) -> int:
    """Bytes of the temporary tensors of a layer's backward pass: the gradients of its units or scores, twice."""
    return 2 * load.rows * length * max(load.number * load.sizes.mlp, 4 * load.sizes.heads * length)


def _logits(load: _Load) -> int:
    """Bytes of the logits of target tokens, in the computing type, in float32, as log-probabilities and as their
    gradient; and of the gradient of the output matrix. Where transformers computes them, also those of questions."""
    sizes, targets = load.sizes, load.rows * load.target
    is_spared = sizes.encoder_layers > 0 or (sizes.has_fast_path and not load.on_gpu)
    questions = 0 if is_spared else load.rows * load.prompt
    made = sizes.vocabulary * (12 * targets + load.number * (2 * targets + questions))
    return made + 4 * sizes.embedded * (not load.is_frozen)


def _replies(load: _Load) -> int:
    """Bytes of evaluation: keys and values of all layers, logits of one token a row; lean decoders copy the weights."""
    sizes, prompts = load.sizes, load.rows * load.prompt
    number = load.number if load.on_gpu or not sizes.has_fast_path else 4
    cached = prompts + load.rows * (load.target + _EXTRA_TOKENS) + prompts * (sizes.encoder_layers > 0)
    cache = 2 * cached * sizes.inner * sizes.layers * number
    copies = load.number * (sizes.multiplied if load.number == 2 else _joined(sizes)) * sizes.has_fast_path
    reading = prompts * (2 * sizes.mlp + 4 * sizes.inner) * load.number
    return cache + copies + reading + 8 * load.rows * sizes.vocabulary
