"""The bundled model and what belongs to it: prompts, held-out text, the catalog, the recipe."""

from pathlib import Path

FOLDER = Path(__file__).parent
