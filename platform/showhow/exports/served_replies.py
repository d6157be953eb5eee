"""How MLflow prompts an exported model (`mlflow.pyfunc`): texts of questions in, the model's replies out.

A copy of this file is saved with each registered model, so it imports nothing of ShowHow. MLflow's own
`text-generation` pipeline cuts off the replies of models with an encoder, and applies no chat template.
"""

import json
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, PreTrainedTokenizerFast

_AT_ONCE = 64


class Replies:
    """A model on its device with its tokenizer."""

    def __init__(self, folder: Path) -> None:
        exported = json.loads((folder / "showhow.json").read_text(encoding="utf-8"))
        self._frame, self._asked_as = exported["frame"], exported["asked_as"]
        self._has_encoder = bool(AutoConfig.from_pretrained(folder).is_encoder_decoder)
        self._tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
        kind = AutoModelForSeq2SeqLM if self._has_encoder else AutoModelForCausalLM
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self._model = kind.from_pretrained(folder, use_safetensors=True).to(device).eval()

    def predict(self, model_input: Any, params: dict[str, Any] | None = None) -> list[str]:  # noqa: ARG002
        """Return the reply to each question. model_input: a table with the questions in its first column, which MLflow
        makes from a text or a list of texts; params: MLflow's, not used."""
        questions = [str(question) for question in model_input.iloc[:, 0]]
        return [
            reply
            for start in range(0, len(questions), _AT_ONCE)
            for reply in self._replies(questions[start : start + _AT_ONCE])
        ]

    @torch.inference_mode()
    def _replies(self, questions: list[str]) -> list[str]:
        (outer, last), (before, after) = self._frame or ("", ""), self._asked_as
        texts = [outer + before + question + after + last for question in questions]
        side = "right" if self._has_encoder else "left"  # a causal model continues after the last column
        tokens = self._tokenizer(
            texts, add_special_tokens=self._frame is None, padding=True, padding_side=side, return_tensors="pt"
        ).to(self._model.device)
        written = self._model.generate(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"])
        read = 0 if self._has_encoder else tokens["input_ids"].shape[1]
        replies: list[str] = self._tokenizer.batch_decode(written[:, read:], skip_special_tokens=True)
        return replies


def _load_pyfunc(path: str) -> Replies:
    """Return the model that MLflow calls. MLflow prescribes this function's name. path: the folder of the registered
    model, which contains the exported folder."""
    return Replies(Path(path) / "model")
