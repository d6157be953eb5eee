"""The tokenizer of an exported model, and the chat template and the licence of its pretrained base."""

import json
import shutil
from pathlib import Path

from huggingface_hub import ModelCard, hf_hub_download

from showhow.datasets.tokenizer import StudyTokenizer, settings_folder
from showhow.sections.recipe import ModelSpec, PretrainedModel

# The files of a tokenizer other than `tokenizer.json`, under the names that models have used.
_FILES = (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "spiece.model",
    "tokenizer.model",
    "sentencepiece.bpe.model",
)


def licence_of(model: ModelSpec) -> str | None:
    """Return the licence in a pretrained model's card; None where there is no card, or no licence in it."""
    if not isinstance(model, PretrainedModel):
        return None
    try:
        local = Path(model.name) / "README.md"
        path = local if Path(model.name).is_dir() else Path(hf_hub_download(model.name, "README.md"))
        card = ModelCard(path.read_text(encoding="utf-8"), ignore_metadata_errors=True)
    except (OSError, ValueError):
        return None
    licence = card.data.get("license")
    return licence if isinstance(licence, str) else None


def write_tokenizer(words: StudyTokenizer, model: ModelSpec, folder: Path) -> None:
    """Write the tokenizer of a run, and the other tokenizer files of its pretrained model."""
    if isinstance(model, PretrainedModel):
        base = settings_folder(model.name)
        for name in _FILES:
            if (base / name).is_file():
                shutil.copyfile(base / name, folder / name)
    words.tokenizer.save(str(folder / "tokenizer.json"))
    config = folder / "tokenizer_config.json"
    settings = json.loads(config.read_text(encoding="utf-8")) if config.exists() else {}
    roles = {"pad": words.ids.pad, "eos": words.ids.end, "bos": words.ids.start, "unk": words.ids.unknown}
    for role, number in roles.items():
        if number is not None and not settings.get(f"{role}_token"):
            settings[f"{role}_token"] = words.tokenizer.id_to_token(number)
    # Not transformers' class for the architecture, which would build another tokenizer.
    settings |= {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    settings.setdefault("model_input_names", ["input_ids", "attention_mask"])
    config.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
