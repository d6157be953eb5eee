"""Laws of what is told of a pretrained model before any process starts: why a trial cannot train it, and what to do."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file
from studies import changed, complaint, line_of, load

from showhow.models.lengths import training_lengths
from showhow.models.settings import folder_faults, model_faults, positions_of
from showhow.models.weights import INDEX, TensorShapes, read_weights
from showhow.sections.adapter import Adapter, Dora, Lora, PromptTuning, RsLora
from showhow.sections.faults import Fault
from showhow.sections.recipe import PretrainedModel
from showhow.sections.trial import Trial

SCRATCH = 'kind = "scratch"\narchitecture = "llama"\nhidden_size = 64\nlayers = 2'
LORA = Lora(kind="lora")
SHAPES = {
    "model.embed_tokens.weight": (30, 8),
    "model.layers.0.self_attn.q_proj.weight": (8, 8),
    "model.layers.0.mlp.up_proj.weight": (16, 8),
    "model.layers.0.input_layernorm.weight": (8,),
    "lm_head.weight": (30, 8),
}


def tensors(*names: str) -> dict[str, Any]:
    return {name: np.zeros(SHAPES[name], dtype=np.float32) for name in names or SHAPES}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    home = tmp_path / "model"
    home.mkdir()
    save_file(tensors(), home / "model.safetensors")
    write(home / "config.json", {"model_type": "llama", "vocab_size": 30, "max_position_embeddings": 1024})
    write(home / "tokenizer.json", {"model": {"vocab": {"a": 0, "b": 1}}, "added_tokens": [{"id": 29, "content": "c"}]})
    write(home / "tokenizer_config.json", {"eos_token": "c"})
    return home


def write(path: Path, content: Any) -> None:
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def trial_of(tmp_path: Path, name: str | Path, adapter: Adapter | None = None, *settings: str, **model: Any) -> Trial:
    study = load(tmp_path, changed((SCRATCH, 'kind = "pretrained"\nname = "some/model"')), *settings)
    trial = study.trials[0].model_copy(update={"adapter": adapter})
    spec = PretrainedModel(kind="pretrained", name=str(name))
    return trial.model_copy(update={"model": spec.model_copy(update=model)})


def only(faults: list[Fault]) -> Fault:
    (fault,) = faults
    return fault


def test_a_folder_that_holds_all_is_without_fault(tmp_path: Path, folder: Path) -> None:
    for adapter in (
        None,
        LORA,
        Lora(kind="lora", targets=("q_proj", "mlp.up_proj", "lm_head")),
        PromptTuning(kind="prompt"),
    ):
        trial = trial_of(tmp_path, folder, adapter, "data.max_tokens=1000")
        assert model_faults(trial, 0.0) == folder_faults(trial, folder) == []


@pytest.mark.parametrize("name", ["gpt2", "google-t5/t5-small", "Qwen/Qwen2.5-0.5B-Instruct"])
def test_of_a_model_on_the_hub_nothing_is_known(tmp_path: Path, name: str) -> None:
    assert model_faults(trial_of(tmp_path, name, LORA), 0.0) == []


def test_a_missing_folder_is_answered_with_the_nearest(tmp_path: Path, folder: Path) -> None:
    key, message = only(model_faults(trial_of(tmp_path, tmp_path / "modle"), 0.0))
    assert key == "model.name"
    assert f'there is no folder "{tmp_path}/modle". Did you mean "{folder}"?' in message
    file = tmp_path / "model.gguf"
    file.touch()
    assert "is a file; a model is a folder" in only(model_faults(trial_of(tmp_path, file), 0.0)).message


# what is done to the folder, what is said
BROKEN: list[tuple[Callable[[Path], object], str]] = [
    (lambda home: (home / "config.json").unlink(), "is not a model: it has no readable config.json. Copy the complete"),
    (lambda home: write(home / "config.json", "{"), "it has no readable config.json"),
    (lambda home: write(home / "config.json", "[]"), "it has no readable config.json"),
    (lambda home: (home / "tokenizer.json").unlink(), "AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)"),
    (
        lambda home: (home / "tokenizer_config.json").unlink(),
        "lacks a readable tokenizer.json or tokenizer_config.json",
    ),
    (lambda home: (home / "model.safetensors").unlink(), "contains no weights: neither model.safetensors nor"),
    (lambda home: write(home / "model.safetensors", "version https://git-lfs.github.com/spec/v1"), "truncated or not"),
    (lambda home: write(home / "model.safetensors", ""), "truncated or not safetensors (model.safetensors)"),
    (lambda home: cut(home / "model.safetensors", 50), "truncated or not safetensors"),
    (lambda home: cut(home / "model.safetensors", -1), "truncated or not safetensors"),
    (
        lambda home: write(home / INDEX, {"weight_map": {"a": "model-1-of-2.safetensors"}}),
        "lacks model-1-of-2.safetensors",
    ),
    (lambda home: write(home / INDEX, {"weights": {}}), "that cannot be read"),
    (
        lambda home: pickled(home, {"model_type": "gpt2"}),
        "AutoModelForCausalLM.from_pretrained(FOLDER, use_safetensors=F",
    ),
    (lambda home: pickled(home, {"model_type": "bart", "is_encoder_decoder": True}), "AutoModelForSeq2SeqLM"),
    (
        lambda home: write(home / "config.json", {"quantization_config": {"quant_method": "gptq"}}),
        "contains quantised weights already (gptq)",
    ),
]


def cut(path: Path, end: int) -> None:
    path.write_bytes(path.read_bytes()[:end])


def pickled(home: Path, settings: dict[str, Any]) -> None:
    (home / "model.safetensors").rename(home / "pytorch_model.bin")
    write(home / "config.json", settings)


@pytest.mark.parametrize(("damage", "said"), BROKEN)
def test_what_a_folder_lacks_is_told(tmp_path: Path, folder: Path, damage: Callable[[Path], object], said: str) -> None:
    assert model_faults(trial_of(tmp_path, folder), 0.0) == []
    damage(folder)
    key, message = only(model_faults(trial_of(tmp_path, folder), 0.0))
    assert key == "model.name"
    assert str(folder) in message
    assert said in message


def test_the_folder_of_an_adapter_is_no_model(tmp_path: Path) -> None:
    home = tmp_path / "adapter"
    home.mkdir()
    write(home / "adapter_config.json", {})
    messages = [fault.message for fault in model_faults(trial_of(tmp_path, home), 0.0)]
    assert any("It contains an adapter; merge it into its model" in message for message in messages)


def test_weights_in_several_files_are_read_by_their_index(tmp_path: Path, folder: Path) -> None:
    whole = read_weights(folder)
    names = list(SHAPES)
    (folder / "model.safetensors").unlink()
    parts = {"a.safetensors": names[:2], "b.safetensors": names[2:]}
    for file, held in parts.items():
        save_file(tensors(*held), folder / file)
    write(folder / INDEX, {"weight_map": {name: file for file, held in parts.items() for name in held}})
    assert read_weights(folder) == whole == TensorShapes(SHAPES)


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("q_prj", '"q_prj" is no layer of the model. Did you mean "q_proj"? Linear layers: q_proj, up_proj'),
        ("input_layernorm", "Linear layers: q_proj, up_proj"),
        ("proj", "is no layer"),
        ("q", "is no layer"),
    ],
)
def test_a_target_that_no_layer_is_named_is_answered_with_those_that_are(
    tmp_path: Path, folder: Path, target: str, said: str
) -> None:
    trial = trial_of(tmp_path, folder, Lora(kind="lora", targets=("up_proj", target)))
    key, message = only(model_faults(trial, 0.0))
    assert key == "adapter.targets"
    assert said in message


def test_texts_longer_than_the_models_positions_are_refused(tmp_path: Path, folder: Path) -> None:
    trial = trial_of(tmp_path, folder, None, "data.max_tokens=1025")
    assert only(model_faults(trial, 0.0)) == (
        "data.max_tokens",
        "got 1,025, but the model has 1,024 positions; write 1,024 or less",
    )
    assert folder_faults(trial, folder) == model_faults(trial, 0.0)
    tuned = trial_of(tmp_path, folder, PromptTuning(kind="prompt", tokens=100), "data.max_tokens=925")
    assert (
        "1,024 positions, of which adapter.tokens take 100; write 924 or less" in only(model_faults(tuned, 0)).message
    )


@pytest.mark.parametrize(
    ("settings", "positions"),
    [
        ({"model_type": "llama", "max_position_embeddings": 2048}, 2048),
        ({"model_type": "gpt2", "n_positions": 1024, "n_ctx": 1024}, 1024),
        ({"model_type": "t5", "n_positions": 512}, None),
        ({"model_type": "mamba"}, None),
        ({"text_config": {"model_type": "gemma3_text", "max_position_embeddings": 32768}}, 32768),
        # scaled already: Llama 3.1
        (
            {
                "max_position_embeddings": 131072,
                "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 8192},
            },
            131072,
        ),
        # not yet: Qwen 2.5 with YaRN, and a linear stretch
        (
            {
                "max_position_embeddings": 32768,
                "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768},
            },
            131072,
        ),
        ({"max_position_embeddings": 2048, "rope_scaling": {"type": "linear", "factor": 2.0}}, 4096),
        ({"max_position_embeddings": 2048, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}, 2048),
    ],
)
def test_positions_are_those_of_the_configuration(settings: dict[str, Any], positions: int | None) -> None:
    assert positions_of(settings) == positions


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(0, 10**6) | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=4,
)


@given(
    st.dictionaries(
        st.sampled_from(
            ["model_type", "max_position_embeddings", "n_positions", "rope_scaling", "text_config", "vocab_size"]
        ),
        JSON_VALUES,
    )
)
def test_whatever_stands_in_a_configuration_positions_are_a_number_or_unknown(settings: dict[str, Any]) -> None:
    found = positions_of(settings)
    assert found is None or found >= 0


def test_an_adapter_is_refused_where_the_tokenizer_has_more_tokens_than_the_model(tmp_path: Path, folder: Path) -> None:
    write(folder / "config.json", {"model_type": "llama", "vocab_size": 29})
    assert model_faults(trial_of(tmp_path, folder), 0.0) == []
    key, message = only(model_faults(trial_of(tmp_path, folder, LORA), 0.0))
    assert key == "adapter"
    assert "has 30 tokens and the model 29" in message


def test_packed_rows_are_refused_for_encoders_and_for_prompt_tuning(tmp_path: Path, folder: Path) -> None:
    packed = 'recipe.batching="packed"'
    assert model_faults(trial_of(tmp_path, folder, LORA, packed), 0.0) == []
    prompted = only(
        model_faults(trial_of(tmp_path, folder, PromptTuning(kind="prompt"), packed, "data.max_tokens=9"), 0)
    )
    assert (prompted.key, 'write "grouped"' in prompted.message) == ("recipe.batching", True)
    write(folder / "config.json", {"model_type": "bart", "is_encoder_decoder": True})
    encoder = only(model_faults(trial_of(tmp_path, folder, LORA, packed), 0.0))
    assert encoder == ("recipe.batching", '"packed" is for causal models, and bart is none; write "grouped"')


@pytest.mark.parametrize("bits", ["4bit", "8bit"])
def test_few_bits_need_an_adapter_a_gpu_and_bitsandbytes(tmp_path: Path, bits: str) -> None:
    installed = find_spec("bitsandbytes") is not None
    for adapter, gpus in ((None, 0.0), (LORA, 0.0), (LORA, 1.0)):
        faults = model_faults(trial_of(tmp_path, "some/model", adapter, quantise=bits), gpus)
        assert {fault.key for fault in faults} <= {"model.quantise"}
        said = [
            part
            for fault in faults
            for part in ("add an [adapter]", "needs GPUs", "pip install")
            if part in fault.message
        ]
        expected = [*["add an [adapter]"] * (adapter is None), *["needs GPUs"] * (gpus == 0)]
        assert said == expected + ["pip install"] * (gpus > 0 and not installed)


def test_eight_bits_do_not_go_with_dora(tmp_path: Path) -> None:
    for kind, bits, said in ((Dora, "8bit", True), (Dora, "4bit", False), (RsLora, "8bit", False)):
        adapter = kind(kind=kind.__name__.lower())
        faults = model_faults(trial_of(tmp_path, "some/model", adapter, quantise=bits), 1.0)
        assert any('write "4bit"' in fault.message for fault in faults) == said


def test_a_precision_that_cpus_do_not_train_in_is_refused(tmp_path: Path) -> None:
    scratch = load(tmp_path).trials[0]
    for trial in (scratch, trial_of(tmp_path, "some/model")):
        half, brain = (
            trial.model_copy(update={"recipe": trial.recipe.model_copy(update={"precision": precision})})
            for precision in ("float16", "bfloat16")
        )
        assert only(model_faults(half, 0.0)).key == "recipe.precision"
        assert model_faults(half, 0.5) == model_faults(brain, 0.0) == []
    text = changed(("batch_size = 16", 'batch_size = 16\nprecision = "float16"'))
    assert f"study.toml:{line_of(text, 'precision')}: recipe.precision: got" in complaint(tmp_path, text)
    assert load(tmp_path, text, "resources.gpus_per_device=1.0")


def test_an_adapter_beside_a_model_from_scratch_is_refused(tmp_path: Path) -> None:
    (trial, *_) = load(tmp_path).trials
    key, message = only(model_faults(trial.model_copy(update={"adapter": LORA}), 0.0))
    assert key == "adapter"
    assert 'write kind = "pretrained" in [model]' in message


CHAT = (
    "{% for one in messages %}<|start|>{{ one.role }}\n{{ one.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)


@pytest.mark.parametrize(
    ("template", "questions", "said"),
    [
        (CHAT, "auto", None),
        (CHAT, "chat", None),
        (None, "auto", None),
        (None, "chat", "has no chat template (chat_template.jinja, or"),
        ("{{ raise_exception('only with images') }}", "auto", "cannot be used (only with images)"),
        ("{% for one in messages %}", "auto", "cannot be used ("),
        ("{{ raise_exception('only with images') }}", "plain", None),
    ],
)
def test_a_chat_template_that_cannot_be_used_is_a_mistake_of_the_study(
    tmp_path: Path, folder: Path, template: str | None, questions: str, said: str | None
) -> None:
    if template is not None:
        write(folder / "chat_template.jinja", template)
    faults = model_faults(trial_of(tmp_path, folder, questions=questions), 0.0)
    if said is None:
        assert faults == []
    else:
        assert only(faults).key == "model.questions"
        assert said in only(faults).message


def test_a_template_that_is_no_text_is_a_mistake_of_the_study(tmp_path: Path, folder: Path) -> None:
    (folder / "chat_template.jinja").write_bytes(b"\xff")
    assert "cannot be used ('utf-8' codec" in only(model_faults(trial_of(tmp_path, folder), 0.0)).message


def test_what_a_template_puts_around_a_question_is_counted_special_tokens_as_one(tmp_path: Path, folder: Path) -> None:
    plain = training_lengths(trial_of(tmp_path, folder))
    write(folder / "chat_template.jinja", CHAT)
    write(
        folder / "tokenizer.json",
        {
            "model": {"vocab": {}},
            "added_tokens": [{"id": n, "content": c} for n, c in enumerate(["<|start|>", "<|end|>"])],
        },
    )
    # <|start|> user, a line break, <|end|> <|start|> assistant, a line break
    asked = training_lengths(trial_of(tmp_path, folder))
    assert asked == plain._replace(prompt=plain.prompt + 7, longest_prompt=plain.longest_prompt + 7)
    assert training_lengths(trial_of(tmp_path, folder, questions="plain")) == plain
    most = plain.longest_prompt + plain.longest_target
    short = training_lengths(trial_of(tmp_path, folder, None, f"data.max_tokens={most}"))
    assert short.longest_prompt + short.longest_target == most


def test_a_folder_is_read_again_when_it_changes(tmp_path: Path, folder: Path) -> None:
    trial = trial_of(tmp_path, folder, Lora(kind="lora", targets=("up_proj",)))
    assert model_faults(trial, 0.0) == []
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    save_file(tensors("model.layers.0.self_attn.q_proj.weight"), folder / "model.safetensors")
    assert only(model_faults(trial, 0.0)).key == "adapter.targets"
    assert (
        model_faults(trial.model_copy(update={"model": PretrainedModel(kind="pretrained", name=str(other))}), 0) == []
    )


# The [adapter] section as it is written, and the part of the line that is to be named, and what is to be said.
PRETRAINED = changed((SCRATCH, 'kind = "pretrained"\nname = "some/model"\n\n[adapter]\nkind = "lora"\nrank = 8'))
ADAPTER_MISTAKES = [
    ('kind = "lora"\n', "", "[adapter]", ["adapter.kind: is missing. Allowed: lora, dora, rslora, prompt"]),
    (
        '"lora"',
        '"loar"',
        '"loar"',
        ['adapter.kind: got "loar". Did you mean "lora"? Allowed: lora, dora, rslora, prompt'],
    ),
    ("rank = 8", "rnk = 8", "rnk", ['adapter.rnk: there is no such setting. Did you mean "rank"?']),
    ("rank = 8", "rank = 0", "rank", ["adapter.rank: got 0, must be at least 1"]),
    ("rank = 8", 'rank = "8"', "rank", ['adapter.rank: got "8", must be a whole number']),
    ("rank = 8", "alpha = 0", "alpha", ["adapter.alpha: got 0, must be above 0"]),
    ("rank = 8", "dropout = 2.0", "dropout", ["adapter.dropout: got 2.0, must be at most 1"]),
    ("rank = 8", 'targets = "q_proj"', "targets", ['adapter.targets: got "q_proj", must be a list']),
    ("rank = 8", "tokens = 8", "tokens = 8", ["adapter.tokens: there is no such setting. Allowed: rank, alpha"]),
    (
        'kind = "lora"\nrank = 8',
        'kind = "prompt"\ntokens = 2000',
        "tokens = 2",
        ["adapter.tokens: got 2000, must be at"],
    ),
    ("[search]", "[search]\nadapter.rnk = { grid = [4] }", "adapter.rnk", ['Did you mean "adapter.rank"?']),
    ("[search]", "[search]\nadapter.rank = { grid = [4, 16] }", "adapter.rank", ["both searched and set in [adapter]"]),
    (
        "rank = 8\n|[search]",
        "\n|[search]\nadapter.rank = { grid = [0] }",
        "adapter.rank",
        ["search.adapter.rank: got 0"],
    ),
]


@pytest.mark.parametrize(("old", "new", "place", "said"), ADAPTER_MISTAKES)
def test_a_mistake_in_an_adapter_is_answered_with_its_line_and_what_is_allowed(
    tmp_path: Path, old: str, new: str, place: str, said: list[str]
) -> None:
    text = PRETRAINED
    for part, other in zip(old.split("|"), new.split("|"), strict=True):
        assert part in text
        text = text.replace(part, other, 1)
    answer = complaint(tmp_path, text)
    assert f"study.toml:{line_of(text, place)}: " in answer
    for part in said:
        assert part in answer


def test_what_an_adapter_sets_can_be_searched(tmp_path: Path) -> None:
    text = PRETRAINED.replace("\nrank = 8", "").replace("[search]", "[search]\nadapter.rank = { grid = [4, 16] }")
    study = load(
        tmp_path, text.replace("samples = 2\n", "").replace("{ log_uniform = [1e-4, 1e-3] }", "{ grid = [1e-3] }")
    )
    ranks = {trial.adapter.rank for trial in study.trials if isinstance(trial.adapter, Lora)}
    assert ranks == {4, 16}


def test_what_is_told_of_a_folder_loads_nothing_heavy(tmp_path: Path, folder: Path) -> None:
    program = (
        "import sys, showhow.models.settings; "
        "print([name for name in ('torch', 'transformers', 'safetensors', 'peft', 'jinja2') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


BESIDE = (SCRATCH, 'kind = "pretrained"\nname = "model"\nquestions = "plain"')


def test_a_relative_folder_begins_at_the_study_file_wherever_the_command_is_called(
    tmp_path: Path, folder: Path
) -> None:
    assert load(tmp_path, changed(BESIDE)).trials[0].model.name == str(folder)
    both = changed((f"{BESIDE[0]}\n", 'kind = "pretrained"\n'), ("samples = 2", 'model.name = { grid = ["./model"] }'))
    assert {trial.model.name for trial in load(tmp_path, both).trials} == {str(folder)}


def test_what_is_written_as_a_folder_and_is_none_is_refused_and_a_name_of_the_hub_stays_one(
    tmp_path: Path, folder: Path
) -> None:
    missing = changed((BESIDE[0], BESIDE[1].replace('"model"', '"./modle"')))
    assert 'there is no folder "modle". Did you mean' in complaint(tmp_path, missing)
    hub = changed((BESIDE[0], BESIDE[1].replace('"model"', '"some/model"')))
    assert load(tmp_path, hub).trials[0].model.name == "some/model"
