"""Trees of texts behind a prompt, with the settings of a request."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tokenglass.cli.options.prompt import PromptOptions
from tokenglass.cli.run.request import encode
from tokenglass.model.config.fields import quote
from tokenglass.model.decoding.branches import Branches
from tokenglass.model.decoding.job import Job
from tokenglass.model.decoding.request import Request, check_length
from tokenglass.model.errors import TraceError
from tokenglass.model.loaded_model import LoadedModel, OpenedModel
from tokenglass.model.runs.branch_file import SavedTree
from tokenglass.model.runs.run import Run, describe_run
from tokenglass.model.sampling.penalties import LogitBias


@dataclass(slots=True)
class Planting:
    """Makes branches behind a prompt: that of the `request`, and others in its place."""

    loaded: LoadedModel
    request: Request
    options: PromptOptions
    candidates: int

    def plant(self, text: str) -> tuple[Branches, Run]:
        """Branches behind the request's own prompt, which is `text`. Raises TokenglassError."""
        return self._plant(text, self.request)

    def __call__(self, text: str) -> tuple[Branches, Run]:
        """Branches behind another text. Raises TokenglassError."""
        prompt_ids = encode(self.loaded, text, replace(self.options, prompt=[text], prompt_option=None))
        check_length(prompt_ids, self.loaded.limit)
        return self._plant(text, replace(self.request, prompt_ids=prompt_ids))

    def can_change(self, text: str) -> bool:
        """Whether another text would be read as this one was: a saved prompt may have gone through a template."""
        return self.options.chat or self.loaded.tokenizer.encode(text) == self.request.prompt_ids

    def text_of(self, run: Run) -> str:
        """What of a run's prompt was given, and can be edited."""
        return run.prompt.removesuffix(self.options.display_text(""))

    def _plant(self, text: str, request: Request) -> tuple[Branches, Run]:
        run = describe_run(self.loaded, replace(request, top=self.candidates), self.options.display_text(text))
        return Branches(Job.of(self.loaded, request), self.candidates), run


def check_tree(saved: SavedTree, opened: OpenedModel) -> None:
    """Raises TraceError where the tree is of another model, or its ids are none of this one's."""
    run, request = saved.run, saved.run.request
    for name, wanted, here in (
        ("model", run.model_fingerprint, opened.checkpoint.fingerprint),
        ("tokenizer", run.tokenizer_fingerprint, opened.tokenizer_fingerprint),
    ):
        if wanted and wanted != here:
            raise TraceError(f"{saved.path}: saved with {quote(run.model)}; the {name} of {opened.name} is another")
    biased = request.sampling.get(LogitBias).sums
    for token_id in (*request.prompt_ids, *request.negative_ids, *request.eos_token_ids, *biased):
        if not 0 <= token_id < opened.vocab_size:
            raise TraceError(f"{saved.path}: token id {token_id} is none of {opened.name}'s")
