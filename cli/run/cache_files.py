"""The cache of a run, from a file and into one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tokenglass.cli.options.cache import CacheOptions
from tokenglass.cli.say import say
from tokenglass.model.errors import ParameterError
from tokenglass.model.files import expand_home

if TYPE_CHECKING:
    from tokenglass.model.decoding.request import Request
    from tokenglass.model.engine.cache import KVCache
    from tokenglass.model.loaded_model import LoadedModel


class CacheFiles:
    """What --save-cache and --load-cache name, of a run of one text."""

    def __init__(self, options: CacheOptions, *, is_single: bool, use_cache: bool):
        """Raises ParameterError for what does not go together, and where no file can be made."""
        save, load = options.save_cache, options.load_cache
        self._save = None if save is None else expand_home(str(save))
        self._load = None if load is None else expand_home(str(load))
        if self._save is not None and self._save != self._load:
            from tokenglass.model.runs.trace_writer import require_new

            require_new(self._save, "cache")
        if self.is_on and not (is_single and use_cache):
            name = "--save-cache" if self._save is not None else "--load-cache"
            raise ParameterError(f"{name} is for a single text; leave out --no-cache, --num-samples and --beams")

    @property
    def is_on(self) -> bool:
        return self._save is not None or self._load is not None

    def begin(self, loaded: LoadedModel, request: Request, *, quiet: bool, needed: bool = False) -> KVCache | None:
        """The cache that the run goes on with, None for one of its own where none is `needed`; what of it can be used
        is told.

        Raises CacheFileError.
        """
        if not (self.is_on or needed):
            return None
        cache = loaded.engine.new_cache(planned_length=request.planned_length(loaded.engine.limit))
        if self._load is None:
            return cache
        from tokenglass.model.engine.cache_file import load_row

        serves = load_row(self._load, cache, loaded.cache_identity, loaded.vocab_size)
        reused = cache.keep_prefix(0, request.prompt_ids[:-1])
        if not quiet:
            why = "" if serves else ": a run of this length has other rotary factors"
            say(f"({reused:,} of {len(request.prompt_ids):,} prompt positions reused{why})")
        return cache

    def end(self, loaded: LoadedModel, cache: KVCache | None) -> None:
        """Save what the cache holds. Raises OSError."""
        if self._save is None or cache is None:
            return
        if not cache.lengths[0]:
            say(f"note: {self._save}: nothing was computed, and no cache is saved")
            return
        from tokenglass.model.engine.cache_file import save_row

        save_row(self._save, cache, loaded.cache_identity)
