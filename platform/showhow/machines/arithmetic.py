"""What a run computes, and how long that takes: estimates from formulas. Pure.

`nominal_flops` is what studies are compared by and runs report: 6 x parameters x tokens (Kaplan et al., arXiv
2001.08361), with an adapter 4 for each frozen weight. `training_flops` is what a device really has to do: attention and
recomputation too, the encoder for questions alone and the decoder for targets alone.
"""

from showhow.machines import machine
from showhow.machines.layout import Layout
from showhow.models.lengths import Lengths
from showhow.models.sizes import ModelSizes
from showhow.sections.recipe import Recipe
from showhow.sections.resources import Resources

# Of a GPU's best speed, what training reaches: a common share for models of a billion parameters and more (PaLM, arXiv
# 2204.02311, section 4.1, lists 21% to 46%). Small models and short texts reach far less.
SHARE_OF_PEAK = 0.4
# Operations a second that training reached on one CPU (AMD EPYC with avx512_bf16): measured, and half or twice as many
# on another.
CPU_FLOPS = {"float32": 85e9, "bfloat16": 150e9}
# What a pass over a micro-batch takes on such a CPU beside its products: for itself, and for each attention or
# feed-forward part of the model. For llama and t5 models of 0.3M and 5M parameters in both types, with compiled
# operations, this and the products gave 1.1 to 1.3 times what was measured. Without them a step takes at least half as
# long again (docs/performance.md).
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
    """Return how long training on so many examples takes; None where the devices' speed is not known."""
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
    """Return the operations a second that one device is taken to reach; None for a GPU of which the study does not say
    how fast it is."""
    if resources.device_tflops is not None:
        return SHARE_OF_PEAK * resources.device_tflops * 1e12 * (resources.gpus_per_device or 1)
    if resources.gpus_per_device:
        return None
    narrow = machine.computes_narrow(recipe.precision, on_gpu=False)
    return CPU_FLOPS["bfloat16" if narrow else "float32"] * resources.cpus_per_device


def _products(sizes: ModelSizes, lengths: Lengths) -> float:
    """Operations of the products of inputs with matrices: two a weight and token."""
    attention, mlp = 4 * sizes.hidden * sizes.inner, (2 + sizes.is_gated) * sizes.hidden * sizes.mlp
    writing = sizes.vocabulary * sizes.hidden
    if not sizes.encoder_layers:
        return 2.0 * (lengths.tokens * sizes.layers * (attention + mlp) + lengths.target * writing)
    reading = lengths.prompt * (sizes.encoder_layers * (attention + mlp) + sizes.layers * attention / 2)
    return 2.0 * (reading + lengths.target * (sizes.layers * (1.5 * attention + mlp) + writing))


def _attention(sizes: ModelSizes, lengths: Lengths) -> float:
    """Operations of scores, and of values weighed by them: two each for every pair of tokens and number of a head."""
    if not sizes.encoder_layers:
        return 4.0 * sizes.layers * sizes.inner * lengths.tokens**2
    own = sizes.encoder_layers * lengths.prompt**2 + sizes.layers * lengths.target**2
    return 4.0 * sizes.inner * (own + sizes.layers * lengths.prompt * lengths.target)
