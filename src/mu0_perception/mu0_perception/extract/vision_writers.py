"""Own the writers that look at pictures: a vision-language model here, or one behind a URL."""

import base64
import json
import os
import random
import re
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mu0_perception.extract.captions import (
    EMBODIMENTS,
    SKILLS,
    CaptionConfig,
    CaptionError,
    CaptionFrom,
    Chunk,
    RecordedWriter,
    Words,
    Writer,
    majority,
    union,
)
from mu0_perception.extract.learned import load
from mu0_perception.extract.recording import About

_KEYS = ("instruction_1", "instruction_2", "instruction_3")
_CHUNK_TASK = (
    "These pictures show one short piece of a manipulation, in order of time; the last one marks "
    "the region that moves. Say what physically happens there. Speak of the scene, never of "
    "pictures, frames or masks, and add nothing that is not visible. Answer with one JSON object: "
    "instruction_1 (a short description in the third person), instruction_2 (a command, at "
    "most 30 words), instruction_3 (a casual request, at most 20 words), embodiment_type (one of "
    f"{', '.join(EMBODIMENTS)}), skill_labels (one or two of {', '.join(SKILLS)})."
)
_MERGE_TASK = (
    "Below are the descriptions of pieces of a manipulation that follow each other. Describe the "
    "whole span in their order, without anything new. Answer with one JSON object: instruction_1 "
    "(a description, at most 35 words), instruction_2 (a command, at most 30 words), "
    "instruction_3 (a casual request, at most 20 words)."
)


def make_writer(config: CaptionConfig) -> Writer | None:
    """Return the writer that a configuration asks for; None for none.

    Raises:
        WeightsError: The model is not on this machine.
    """
    writer = config.writer
    if writer is CaptionFrom.NONE:
        return None
    if writer is CaptionFrom.ENDPOINT or (writer is CaptionFrom.AUTO and config.endpoint):
        return EndpointWriter(config)
    if writer is CaptionFrom.MODEL or (writer is CaptionFrom.AUTO and config.model):
        return ModelWriter(config)
    return RecordedWriter()


class _VisionWriter:
    """Ask for JSON and check what comes."""

    def __init__(self, config: CaptionConfig) -> None:
        self._tries = config.tries

    def describe(self, chunk: Chunk, about: About) -> Words | None:
        """Ask for the words of a chunk."""
        task = _CHUNK_TASK
        if about.instructions:
            task += f" The whole task is: {about.instructions[0]}"
        return self._ask(task, [*chunk.pictures, _marked(chunk)])

    def merge(self, parts: Sequence[Words]) -> Words:
        """Ask for one text for parts; skills and embodiment follow from them."""
        lines = "\n".join(f"{i + 1}. {part.instructions[0]}" for i, part in enumerate(parts))
        words = self._ask(f"{_MERGE_TASK}\n{lines}", [])
        return Words(
            instructions=words.instructions, skills=union(parts), embodiment=majority(parts)
        )

    def _ask(self, task: str, pictures: list[NDArray[np.uint8]]) -> Words:
        problem = CaptionError("never asked")
        for attempt in range(self._tries):
            try:
                return parsed(self._answer(task, pictures))
            except CaptionError as error:
                problem = error
                if not self._pause(attempt, error):
                    break
        raise problem

    def _answer(self, task: str, pictures: list[NDArray[np.uint8]]) -> str:
        raise NotImplementedError

    def _pause(self, attempt: int, error: CaptionError) -> bool:
        """Wait before the next try; say whether there is a point in one."""
        return attempt == 0  # asked the same way, a model here gives the same answer


class EndpointWriter(_VisionWriter):
    """Ask an OpenAI-compatible service."""

    def __init__(self, config: CaptionConfig) -> None:
        super().__init__(config)
        self._config = config
        self.name = f"{config.endpoint_model or 'the model'} at {config.endpoint}"

    def _answer(self, task: str, pictures: list[NDArray[np.uint8]]) -> str:
        content: list[dict[str, Any]] = [{"type": "text", "text": task}]
        content += [
            {"type": "image_url", "image_url": {"url": _data_url(picture)}} for picture in pictures
        ]
        body = {
            "model": self._config.endpoint_model,
            "messages": [{"role": "user", "content": content}],
            "temperature": 0.2,
            "response_format": {"type": "json_object"},
        }
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get(self._config.key_variable):
            headers["Authorization"] = f"Bearer {key}"
        request = urllib.request.Request(
            self._config.endpoint.rstrip("/") + "/chat/completions",
            json.dumps(body).encode(),
            headers,
        )
        try:
            with urllib.request.urlopen(request, timeout=self._config.timeout_s) as response:
                answer = json.load(response)
            return str(answer["choices"][0]["message"]["content"])
        except urllib.error.HTTPError as error:
            kind = _RefusedError if 400 <= error.code < 500 and error.code != 429 else CaptionError
            raise kind(f"{self.name}: HTTP {error.code} {error.reason}") from error
        except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
            raise CaptionError(f"{self.name}: {error}") from error

    def _pause(self, attempt: int, error: CaptionError) -> bool:
        if isinstance(error, _RefusedError):
            return False
        if attempt + 1 < self._tries:
            time.sleep(min(20.0, 0.5 * 2**attempt + random.uniform(0.0, 0.5)))
        return True


class ModelWriter(_VisionWriter):
    """Ask a vision-language model of transformers on this machine."""

    def __init__(self, config: CaptionConfig) -> None:
        super().__init__(config)
        self.name = f"vision-language model {config.model}"
        self._processor, self._model = load(
            "AutoModelForImageTextToText", config.model, "vision-language model"
        )

    def _answer(self, task: str, pictures: list[NDArray[np.uint8]]) -> str:
        import torch

        content: list[dict[str, Any]] = [{"type": "image", "image": p} for p in pictures]
        content.append({"type": "text", "text": task})
        inputs = self._processor.apply_chat_template(
            [{"role": "user", "content": content}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        ).to(self._model.device)
        with torch.inference_mode():
            tokens = self._model.generate(**inputs, max_new_tokens=400, do_sample=False)
        fresh = tokens[:, inputs["input_ids"].shape[1] :]
        return str(self._processor.batch_decode(fresh, skip_special_tokens=True)[0])


class _RefusedError(CaptionError):
    """Report a request that will be refused every time."""


def parsed(answer: str) -> Words:
    """Check an answer and return its words.

    Raises:
        CaptionError: It is no JSON object with at least one instruction.
    """
    match = re.search(r"\{.*\}", answer, re.DOTALL)
    try:
        content = json.loads(match.group() if match else "")
    except ValueError as error:
        raise CaptionError(f"expected a JSON object, got {answer[:80]!r}") from error
    texts = tuple(str(content.get(key) or "").strip() for key in _KEYS)
    if not any(texts):
        raise CaptionError(f"expected instruction_1 to instruction_3, got {answer[:80]!r}")
    labels = content.get("skill_labels") or ()
    skills = tuple(s for s in (labels if isinstance(labels, list) else ()) if s in SKILLS)
    embodiment = content.get("embodiment_type")
    return Words(
        instructions=tuple(text for text in texts if text),
        skills=skills[:2] or ("unknown",),
        embodiment=embodiment if embodiment in EMBODIMENTS else "unknown",
    )


def _marked(chunk: Chunk) -> NDArray[np.uint8]:
    """Return the first picture with all that rests darkened."""
    picture = chunk.pictures[0].copy()
    picture[~chunk.motion] //= 3
    return picture


def _data_url(rgb: NDArray[np.uint8]) -> str:
    data = cv2.imencode(".png", np.ascontiguousarray(rgb[..., ::-1]))[1].tobytes()
    return "data:image/png;base64," + base64.b64encode(data).decode()
