"""How many operations a run computes, and how long they take: estimates from formulas. Pure.

`nominal_flops` is the figure that runs report and studies compare: 6 x parameters x tokens (Kaplan et al., arXiv
2001.08361); with an adapter, 4 for each frozen weight. `training_flops` counts what a device really computes: also
attention and recomputation, the encoder for questions only and the decoder for targets only.
"""

from showhow.machines import machine
from showhow.machines.layout import Layout
from showhow.models.lengths import Lengths
from showhow.models.sizes import ModelSizes
from showhow.sections.recipe import Recipe
from showhow.sections.resources import Resources

# The share of a GPU's peak speed that training reaches, common for models of a billion parameters and more (PaLM, arXiv
# 2204.02311, section 4.1, lists 21% to 46%). Small models and short texts reach far less.
SHARE_OF_PEAK = 0.4
# Measured operations a second of training on one CPU (AMD EPYC with avx512_bf16); other CPUs reach half to twice that.
CPU_FLOPS = {"float32": 85e9, "bfloat16": 150e9}
# Overhead of a pass over a micro-batch on such a CPU, on top of its matrix products: a fixed part, and one for each
# attention or feed-forward part of the model. For llama and t5 models of 0.3M and 5M parameters in both types, with
# compiled operations, the estimate was 1.1 to 1.3 times the measured time. Without compiled operations a step takes at
# least 1.5 times as long (docs/performance.md).
_PASS_SECONDS, _PART_SECONDS = 2e-3, 1e-3


def nominal_flops(sizes: ModelSizes, tokens: float) -> float:
    """Return 6 x parameters x tokens; of frozen weights only 4 of the 6 are computed."""
    if sizes.trained == sizes.parameters:
        return 6.0 * sizes.parameters * tokens
    return (4.0 * sizes.parameters + 6.0 * sizes.trained) * tokens


def training_flops(sizes: ModelSizes, lengths: Lengths, layout: Layout) -> float:
    """Return the operations that training on one example takes, forward and backward."""
    forward = _products(sizes, lengths) + _attention(sizes, lengths)
    backward = forward * (2.0 if sizes.trained == sizes.parameters else 1.0 + sizes.trained / sizes.parameters)
    return forward + backward + forward * layout.recompute_activations


def training_seconds(
    sizes: ModelSizes, lengths: Lengths, layout: Layout, recipe: Recipe, resources: Resources, examples: int
) -> float | None:
    """Return how many seconds training on `examples` takes; None where the devices' speed is not known."""
    a_second = _speed(recipe, resources)
    if a_second is None:
        return None
    on_each = examples / layout.devices
    seconds = training_flops(sizes, lengths, layout) * on_each / a_second
    if resources.gpus_per_device:
        return seconds
    parts = 2 * sizes.encoder_layers + (3 if sizes.encoder_layers else 2) * sizes.layers
    return seconds + on_each / layout.micro_batch_size * (_PASS_SECONDS + _PART_SECONDS * parts)


def _speed(recipe: Recipe, resources: Resources) -> float | None:
    """Return the operations a second that one device is assumed to reach; None for a GPU whose speed the study does not
    give."""
    if resources.device_tflops is not None:
        return SHARE_OF_PEAK * resources.device_tflops * 1e12 * (resources.gpus_per_device or 1)
    if resources.gpus_per_device:
        return None
    narrow = machine.computes_narrow(recipe.precision, on_gpu=False)
    return CPU_FLOPS["bfloat16" if narrow else "float32"] * resources.cpus_per_device


def _products(sizes: ModelSizes, lengths: Lengths) -> float:
    """Operations of the matrix products: two for each weight and token."""
    attention, mlp = 4 * sizes.hidden * sizes.inner, (2 + sizes.is_gated) * sizes.hidden * sizes.mlp
    writing = sizes.vocabulary * sizes.hidden
    if not sizes.encoder_layers:
        return 2.0 * (lengths.tokens * sizes.layers * (attention + mlp) + lengths.target * writing)
    reading = lengths.prompt * (sizes.encoder_layers * (attention + mlp) + sizes.layers * attention / 2)
    return 2.0 * (reading + lengths.target * (sizes.layers * (1.5 * attention + mlp) + writing))


def _attention(sizes: ModelSizes, lengths: Lengths) -> float:
    """Operations of attention scores and of the weighted values: two each for every pair of tokens and head
    dimension."""
    if not sizes.encoder_layers:
        return 4.0 * sizes.layers * sizes.inner * lengths.tokens**2
    own = sizes.encoder_layers * lengths.prompt**2 + sizes.layers * lengths.target**2
    return 4.0 * sizes.inner * (own + sizes.layers * lengths.prompt * lengths.target)
