"""Pretrained models: asked as their chat templates say, trained whole or beside an adapter, their own weights left as
they were, and evaluated with what was trained."""

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pytest
import torch
from folders import SENTENCES, causal_folder, llama_folder, qwen_folder, seq2seq_folder
from transformers import PreTrainedTokenizerFast

from showhow.datasets.tokenizer import StudyTokenizer, check_settings, pretrained_tokenizer
from showhow.errors import TrialError, UserError
from showhow.methods.plain import Plain
from showhow.models.weights import INDEX
from showhow.sections.adapter import Adapter, Dora, Lora, PromptTuning, RsLora
from showhow.sections.budget import Budget
from showhow.sections.data import Data, Evaluation
from showhow.sections.recipe import PretrainedModel, Recipe, ScratchModel
from showhow.sections.trial import Trial
from showhow.tasks.explain import Level
from showhow.training.batches import Source, training_batches
from showhow.training.engine import PlainEngine
from showhow.training.evaluate import Grading, evaluate
from showhow.training.loop import train
from showhow.training.losses import response_loss
from showhow.training.model import build_model, flops_per_token, is_seq2seq, parameter_count, positions
from showhow.training.replies.reply import _padded as padded
from showhow.training.replies.reply import greedy_replies
from showhow.training.replies.transformers_decoder import CausalDecoder, Seq2SeqDecoder
from showhow.training.tokens import SpecialTokens, TokenFile

Files = Callable[..., TokenFile]
Recipes = Callable[..., Recipe]

ADAPTERS: dict[str, Adapter] = {
    "lora": Lora(kind="lora", rank=4, alpha=8.0, dropout=0.1),
    "dora": Dora(kind="dora", rank=4, alpha=8.0),
    "rslora": RsLora(kind="rslora", rank=4, alpha=8.0),
    "prompt": PromptTuning(kind="prompt", tokens=5),
}
NAMES = ["llama_folder", "qwen_folder", "seq2seq_folder"]
CHATS = ["llama_folder", "qwen_folder"]
every_name = pytest.mark.parametrize("name", NAMES)
every_adapter = pytest.mark.parametrize("kind", ADAPTERS)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    home = tmp_path_factory.mktemp("models")
    made = {make.__name__: make(home / make.__name__) for make in (llama_folder, qwen_folder, seq2seq_folder)}
    assert (made["llama_folder"] / INDEX).is_file()
    return made


@pytest.fixture(scope="module")
def files(folders: dict[str, Path], tokens: Files) -> dict[str, TokenFile]:
    return {name: tokens(SENTENCES, Level.LONG, 100, by=pretrained_tokenizer(str(folders[name]))) for name in NAMES}


def build(folder: Path, file: TokenFile, adapter: Adapter | None = None, recipe: Recipe | None = None) -> Any:
    return build_model(PretrainedModel(kind="pretrained", name=str(folder)), file.special, 0, adapter, recipe)


def weights(model: torch.nn.Module, trained: bool) -> dict[str, torch.Tensor]:
    named = model.named_parameters()
    return {name: one.detach().clone() for name, one in named if one.requires_grad == trained}


def learn(model: torch.nn.Module, file: TokenFile, of: Recipe) -> list[float]:
    batches = training_batches(Source(file, of, 0, is_seq2seq(model)))
    return [one.train_loss for one in train(PlainEngine(model, of), of, batches, of.max_examples // 4)]


@every_name
@every_adapter
def test_an_adapter_learns_beside_weights_that_stay_as_they_are(
    folders: dict[str, Path], files: dict[str, TokenFile], recipe: Recipes, name: str, kind: str
) -> None:
    of = recipe(max_examples=400, batch_size=10, learning_rate=0.1 if kind == "prompt" else 0.01)
    model = build(folders[name], files[name], ADAPTERS[kind], of)
    frozen, own = weights(model, trained=False), weights(build(folders[name], files[name]), trained=True)
    assert sorted(map(torch.Tensor.numel, frozen.values())) == sorted(map(torch.Tensor.numel, own.values()))
    began = weights(model, trained=True)
    losses = learn(model, files[name], of)
    assert losses[-1] < (0.98 if kind == "prompt" else 0.8) * losses[0]  # vectors alone teach a random model little
    assert all(torch.equal(one, frozen[key]) for key, one in weights(model, trained=False).items())
    assert not any(torch.equal(one, began[key]) for key, one in weights(model, trained=True).items())
    words = pretrained_tokenizer(str(folders[name]))
    assert evaluate(model, Grading(words.tokenizer, Level.LONG), files[name], 20, 8).metrics["tokens_per_reply"] > 0


@every_name
@every_adapter
def test_replies_are_written_with_what_was_trained(
    folders: dict[str, Path], files: dict[str, TokenFile], name: str, kind: str
) -> None:
    """Prompts of several lengths side by side, and tokens one after another, against whole texts read by peft."""
    file = files[name]
    model = build(folders[name], file, ADAPTERS[kind]).eval()
    torch.manual_seed(3)
    with torch.no_grad():
        for one in model.parameters():
            if one.requires_grad:
                one.add_(0.1 * torch.randn_like(one))
    rows = range(0, 60, 6)
    following = torch.randint(file.special.vocabulary, (len(rows), 3))
    with torch.inference_mode():
        start = torch.tensor([0])  # of a T5's reply
        decoder = Seq2SeqDecoder(model, 0) if is_seq2seq(model) else CausalDecoder(model)
        tokens, mask = padded([file.prompt(row) for row in rows], file.special.pad, decoder)
        found = [decoder.begin(tokens, mask), *(decoder.advance(column) for column in following.T)]
        for index, row in enumerate(rows):
            prompt, reply = torch.from_numpy(file.prompt(row).astype("int64")), following[index]
            if is_seq2seq(model):
                whole = model(input_ids=prompt[None], decoder_input_ids=torch.cat([start, reply])[None])
            else:
                whole = model(input_ids=torch.cat([prompt, reply])[None])
            for step in range(4):
                expected = whole.logits[0, step - 4]
                torch.testing.assert_close(found[step][index], expected, rtol=1e-4, atol=1e-4)


@every_adapter
def test_an_adapter_is_a_function_of_the_seed(folders: dict[str, Path], files: dict[str, TokenFile], kind: str) -> None:
    spec, special = PretrainedModel(kind="pretrained", name=str(folders["qwen_folder"])), files["qwen_folder"].special
    one, again, other = (
        torch.cat([w.flatten() for w in weights(build_model(spec, special, seed, ADAPTERS[kind]), True).values()])
        for seed in (0, 0, 1)
    )
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


@every_adapter
def test_frozen_weights_are_held_in_the_type_they_are_computed_in_and_an_adapter_in_float32(
    folders: dict[str, Path], files: dict[str, TokenFile], recipe: Recipes, kind: str
) -> None:
    for precision, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        of = recipe(precision=precision, max_examples=8)
        model = build(folders["llama_folder"], files["llama_folder"], ADAPTERS[kind], of)
        assert {one.dtype for one in weights(model, trained=False).values()} == {dtype}
        assert {one.dtype for one in weights(model, trained=True).values()} == {torch.float32}
        assert learn(model, files["llama_folder"], of)
        engine = PlainEngine(model, of)
        with engine.autocast():
            greedy_replies(engine.model, [files["llama_folder"].prompt(0)], files["llama_folder"].special, 3, 1)


def test_only_what_is_trained_is_the_state_of_a_run(
    folders: dict[str, Path], files: dict[str, TokenFile], recipe: Recipes
) -> None:
    file, of = files["qwen_folder"], recipe(max_examples=16)
    for kind, adapter in ADAPTERS.items():
        model = build(folders["qwen_folder"], file, adapter)
        engine = PlainEngine(model, of)
        list(train(engine, of, training_batches(Source(file, of, 0, False)), 16))
        kept = {name: one.clone() for name, one in engine.state()}
        expected = {name: one for name, one in model.named_parameters() if one.requires_grad}
        assert {name.removeprefix("weight/") for name in kept if name.startswith("weight/")} == set(expected), kind
        other = PlainEngine(build(folders["qwen_folder"], file, adapter), of)
        other.load_state(kept.__getitem__, 2)
        assert all(torch.equal(kept[name], one) for name, one in other.state())


def test_operations_are_counted_of_frozen_weights_too(folders: dict[str, Path], files: dict[str, TokenFile]) -> None:
    whole, adapted = (build(folders["llama_folder"], files["llama_folder"], a) for a in (None, ADAPTERS["lora"]))
    assert flops_per_token(whole) == 6 * parameter_count(whole)
    assert flops_per_token(adapted) == 4 * parameter_count(whole) + 6 * parameter_count(adapted)


@pytest.mark.parametrize("architecture", ["llama", "t5"])
def test_recomputed_activations_give_the_gradients_of_kept_ones(
    tokens: Files, sizes: Callable[..., ScratchModel], recipe: Recipes, architecture: str
) -> None:
    file = tokens()
    build_as = partial(build_model, sizes(architecture), file.special, 0, None, None)
    compare(build_as, file, recipe())


@every_name
@pytest.mark.parametrize("kind", [None, "lora", "prompt"])
def test_recomputed_activations_give_the_gradients_of_kept_ones_beside_pretrained_weights(
    folders: dict[str, Path], files: dict[str, TokenFile], recipe: Recipes, name: str, kind: str | None
) -> None:
    spec, file = PretrainedModel(kind="pretrained", name=str(folders[name])), files[name]
    build_as = partial(build_model, spec, file.special, 0, ADAPTERS[kind] if kind else None, None)
    compare(build_as, file, recipe())


def compare(build_as: Callable[[bool], torch.nn.Module], file: TokenFile, of: Recipe) -> None:
    gradients = []
    for recompute in (False, True):
        model = build_as(recompute)
        (batch,) = next(training_batches(Source(file, of, 0, is_seq2seq(model)))).micro_batches
        model.train()
        torch.manual_seed(5)  # dropout
        loss = response_loss(model, batch)
        loss.backward()
        gradients.append([loss.detach(), *(one.grad for one in model.parameters() if one.requires_grad)])
        assert greedy_replies(model, [file.prompt(0)], file.special, 3, 1)
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["lora", "dora", "rslora"])
def test_an_adapter_for_layers_that_are_not_there_is_refused(
    folders: dict[str, Path], files: dict[str, TokenFile], kind: str
) -> None:
    for targets, said in ((("q_proj", "query"), '"query" is no layer.*q_proj'), (("norm",), '"norm" is no layer')):
        adapter = ADAPTERS[kind].model_copy(update={"targets": targets})
        with pytest.raises(TrialError, match=rf"adapter.targets: {said}"):
            build(folders["llama_folder"], files["llama_folder"], adapter)
    model = build(
        folders["llama_folder"],
        files["llama_folder"],
        ADAPTERS[kind].model_copy(update={"targets": ("1.mlp.up_proj",)}),
    )
    assert all(".1.mlp.up_proj." in name for name in weights(model, trained=True))


def test_an_adapter_is_refused_where_the_tokenizer_has_more_tokens_than_the_model(tmp_path: Path) -> None:
    words = pretrained_tokenizer(str(causal_folder(tmp_path)))
    special = SpecialTokens(words.ids.pad, words.ids.end, None, words.vocabulary)
    spec = PretrainedModel(kind="pretrained", name=str(tmp_path))
    assert build_model(spec, special, 0)
    with pytest.raises(TrialError, match=f"has {words.vocabulary} tokens and the model {words.vocabulary - 1}; new"):
        build_model(spec, special, 0, ADAPTERS["lora"])


def test_settings_that_a_study_cannot_go_with_are_told_when_the_model_is_found(
    folders: dict[str, Path], recipe: Recipes
) -> None:
    """Of a model on the hub, which no study file could be checked against."""
    for name, said in (("qwen_folder", "got 2,000, but the model has 1,024 positions"), ("seq2seq_folder", None)):
        trial = Trial(
            name="trial-000",
            arm="long",
            setting={},
            level=Level.LONG,
            point={},
            method=Plain(),
            budget=Budget(unit="examples", amount=400),
            task=SENTENCES,
            data=Data(train_examples=100, eval_examples=10, max_tokens=2000),
            model=PretrainedModel(kind="pretrained", name=str(folders[name])),
            recipe=recipe(),
            evaluation=Evaluation(),
        )
        if said is None:
            check_settings(trial)
        else:
            with pytest.raises(UserError, match=f"^data.max_tokens: {said}"):
                check_settings(trial)


def test_few_bits_are_refused_where_bitsandbytes_is_not_installed(
    folders: dict[str, Path], files: dict[str, TokenFile]
) -> None:
    spec = PretrainedModel(kind="pretrained", name=str(folders["llama_folder"]), quantise="4bit")
    with pytest.raises(TrialError, match=r"cannot be loaded.*bitsandbytes"):
        build_model(spec, files["llama_folder"].special, 0, ADAPTERS["lora"])


def test_replies_end_where_the_model_has_no_more_positions(tmp_path: Path) -> None:
    words = pretrained_tokenizer(str(causal_folder(tmp_path)))
    special = SpecialTokens(words.ids.pad, 10**6, None, words.vocabulary)  # none ends by itself
    model = build_model(PretrainedModel(kind="pretrained", name=str(tmp_path)), special, 0)
    assert positions(model) == 1024
    prompt = words.encode(pa.array(["1 + 1 = " * 300]))
    (reply,) = greedy_replies(model, [prompt.ids[:1000]], special, 60, 1)
    assert len(reply) == 24


@pytest.mark.parametrize("name", CHATS)
def test_questions_are_asked_as_transformers_asks_them(
    folders: dict[str, Path], files: dict[str, TokenFile], name: str
) -> None:
    theirs = PreTrainedTokenizerFast.from_pretrained(folders[name])
    end = theirs.convert_tokens_to_ids("<|eot_id|>" if name == "llama_folder" else "<|im_end|>")
    for row, question in enumerate(files[name].texts("question", 20)):
        chat = [{"role": "user", "content": question}]
        asked = theirs.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
        assert files[name].prompt(row).tolist() == asked
        assert asked.count(theirs.bos_token_id) == (name == "llama_folder")
        target = files[name].target(row).tolist()
        assert target[-1] == end == files[name].special.end
        answer = {"role": "assistant", "content": files[name].texts("target", 20)[row]}
        whole = theirs.apply_chat_template([*chat, answer], return_dict=False)
        assert whole[: len(asked) + len(target)] == asked + target


@pytest.mark.parametrize("name", NAMES)
def test_plain_questions_are_read_as_any_text(folders: dict[str, Path], name: str) -> None:
    words = pretrained_tokenizer(str(folders[name]), "plain")
    theirs = PreTrainedTokenizerFast.from_pretrained(folders[name])
    assert words.encode(pa.array(["1 + 1"]), as_prompts=True).ids.tolist() == theirs("1 + 1").input_ids
    assert words.ids.end == theirs.eos_token_id


@pytest.mark.parametrize("name", CHATS)
def test_how_questions_are_asked_is_part_of_the_tokenizers_name_and_is_stored(
    folders: dict[str, Path], tmp_path: Path, name: str
) -> None:
    asked: dict[Literal["auto", "plain", "chat"], StudyTokenizer]
    asked = {how: pretrained_tokenizer(str(folders[name]), how) for how in ("auto", "plain", "chat")}
    assert asked["auto"].fingerprint == asked["chat"].fingerprint != asked["plain"].fingerprint
    questions = pa.array(["1 + 1", "2"])
    for how, words in asked.items():
        words.save(tmp_path / how / "tokenizer.json")
        again = StudyTokenizer.read(tmp_path / how / "tokenizer.json")
        assert (again.frame, again.fingerprint) == (words.frame, words.fingerprint)
        assert again.encode(questions, True).ids.tolist() == words.encode(questions, True).ids.tolist()


def with_template(folders: dict[str, Path], folder: Path, template: Any) -> str:
    shutil.copytree(folders["qwen_folder"], folder)
    (folder / "chat_template.jinja").unlink()
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"chat_template": template}))
    return str(folder)


def test_templates_are_found_where_older_models_have_them(folders: dict[str, Path], tmp_path: Path) -> None:
    template = "Q:{{ messages[0].content }} A:"
    reply = "{% if messages[1] %} {{ messages[1].content }}<|im_end|>{% endif %}"
    several = [{"name": "rag", "template": ""}, {"name": "default", "template": template + reply}]
    for number, written in enumerate([template + reply, several]):
        words = pretrained_tokenizer(with_template(folders, tmp_path / str(number), written))
        assert words.frame == ("Q:", " A:")


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ raise_exception('only with images') }}", "only with images"),
        ("{% for message in messages %}", "cannot be used"),
        ("always the same", "wrote the question 0 times"),
        ("{% for one in messages %}{{ one.content }}{{ one.content }}{% endfor %}", "the question 2 times"),
        ("{{ messages[0].content.upper() }}", "0 times"),
        ("{{ messages[0].role.nothing.at_all }}", "cannot be used"),
        ("{{ ''.__class__.__mro__ }}", "cannot be used"),
    ],
)
def test_a_template_that_cannot_be_used_is_a_users_error(
    folders: dict[str, Path], tmp_path: Path, template: str, said: str
) -> None:
    name = with_template(folders, tmp_path / "model", template)
    with pytest.raises(UserError, match=f'{said}.*questions = "plain"'):
        pretrained_tokenizer(name)
    assert pretrained_tokenizer(name, "plain").frame is None


def test_chat_without_a_template_is_a_users_error(folders: dict[str, Path]) -> None:
    with pytest.raises(UserError, match="has no chat template"):
        pretrained_tokenizer(str(folders["seq2seq_folder"]), "chat")
    assert pretrained_tokenizer(str(folders["seq2seq_folder"]), "auto").frame is None
