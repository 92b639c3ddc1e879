"""What a U-Net's run reads, written into its ``features`` folder by the frozen networks: whatever of it is not there yet."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path

from torch import nn

from chashka.errors import TrainingError
from chashka.nets.autoencoder import Encoder
from chashka.nets.image_tower import ImageTower
from chashka.nets.multilingual import ContrastiveTextEncoder, T5TextEncoder
from chashka.training import composed, places
from chashka.training.captions import load_captions
from chashka.training.components import load_component, recipe_of
from chashka.training.features import (
    canvas_file,
    load_latents,
    write_canvas,
    write_embeddings,
    write_latents,
    write_said,
    write_text,
)
from chashka.training.pictures import Pictures, load_pictures, without
from chashka.training.recipes import UNetRecipe
from chashka.training.scenes import Composer, SceneTable, load_scenes

NETWORKS: dict[str, tuple[Callable[..., nn.Module], str]] = {
    "encoder": (Encoder, "network"),
    "text_contrastive": (ContrastiveTextEncoder, "text"),
    "text_t5": (T5TextEncoder, "text"),
    "picture": (ImageTower, "network"),
}
"""Of each component its class, and where in its stage's recipe the configuration stands."""


class Material:
    """``folder``: where the files go; ``frozen``: the weights of earlier stages. Pictures and scenes are read once, when they are
    asked for first."""

    def __init__(self, folder: Path, shards: Path, recipe: UNetRecipe, frozen: Mapping[str, Path], device: str) -> None:
        self.folder, self.shards, self.recipe, self.frozen, self.device = folder, shards, recipe, frozen, device

    @functools.cached_property
    def pictures(self) -> Pictures:
        return load_pictures(self.shards, keep=without(self.recipe.without))

    @functools.cached_property
    def table(self) -> SceneTable:
        return load_scenes(self.shards / "scenes.safetensors")

    @functools.cached_property
    def composer(self) -> Composer:
        return Composer(self.table, self.pictures, self.device)

    def write(self) -> None:
        """Everything that the recipe reads."""
        self.write_latents()
        if self.recipe.picture_share:
            self._embeddings()
        self._texts()
        if self.recipe.scenes:
            self._scenes()
        self._canvases()

    def write_latents(self) -> None:
        """Of all pictures."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self._there("latents.safetensors"):
            encoder = network_of("encoder", self.frozen["autoencoder"], self.device)
            self._made(
                "latents.safetensors",
                lambda path: write_latents(path, encoder, self.pictures, self.recipe, self.device),
            )

    def places(self) -> places.Places | None:
        """Who is where in the composed scenes, for a recipe that wants to know."""
        if not self.recipe.scenes or not (self.recipe.related or self.recipe.reading):
            return None
        return places.load_places(self.folder / places.FILE, self.table, self.device)

    def _embeddings(self) -> None:
        """Of all pictures."""
        if "picture" not in self.frozen:
            raise TrainingError("this recipe shows pictures (picture_share): give --frozen picture=WEIGHTS")
        if not self._there("picture.safetensors"):
            tower = network_of("picture", self.frozen["picture"], self.device)
            self._made(
                "picture.safetensors",
                lambda path: write_embeddings(path, tower, self.pictures, self.recipe, self.device),
            )

    def _texts(self) -> None:
        """Of pictures and of composed scenes."""
        wanted = ["text"] + ["said"] * (self.recipe.scenes > 0)
        wanted = [name for name in wanted if not self._there(f"{name}.safetensors")]
        if not wanted:
            return
        recipe, device = self.recipe, self.device
        text = network_of("text_contrastive", self.frozen["clip"], device)
        other = None if recipe.head is None else network_of("text_t5", self.frozen["t5"], device)
        if "text" in wanted:
            captions = load_captions(self.shards / "captions.safetensors")
            self._made("text.safetensors", lambda path: write_text(path, text, other, captions, recipe, device))
        if "said" in wanted:
            self._made("said.safetensors", lambda path: write_said(path, text, other, self.table, recipe, device))

    def _scenes(self) -> None:
        """Latents, embeddings and places of composed scenes."""
        recipe = self.recipe
        files = ["scenes.safetensors"] + ["composed.safetensors"] * (recipe.picture_share > 0)
        files += [places.FILE] * bool(recipe.related or recipe.reading)
        wanted = [name for name in files if not self._there(name)]
        readers: dict[str, composed.Reader] = {}
        if "scenes.safetensors" in wanted:
            encoder, scale = network_of("encoder", self.frozen["autoencoder"], self.device), self._scale()
            readers["scenes.safetensors"] = composed.encoded(encoder, scale)
        if "composed.safetensors" in wanted:
            readers["composed.safetensors"] = composed.embedded(
                network_of("picture", self.frozen["picture"], self.device)
            )
        if places.FILE in wanted:
            side = recipe.head.places if recipe.head is not None else 0
            readers[places.FILE] = composed.laid_out(self.table, side or places.SIDE)
        if readers:
            composed.write_composed(self.folder, self.composer, readers, recipe)

    def _canvases(self) -> None:
        """Latents of the recipe's canvases."""
        recipe = self.recipe
        wanted = [(h, w) for h, w, _ in recipe.canvases if not self._there(canvas_file((h, w)))]
        if not wanted:
            return
        encoder, scale = network_of("encoder", self.frozen["autoencoder"], self.device), self._scale()
        composer = self.composer if recipe.scenes else None
        for canvas in wanted:
            write = functools.partial(
                write_canvas,
                encoder=encoder,
                pictures=self.pictures,
                composer=composer,
                scale=scale,
                recipe=recipe,
                canvas=canvas,
            )
            self._made(canvas_file(canvas), write)

    def _scale(self) -> float:
        return load_latents(self.folder, "cpu").latent_scale

    def _there(self, name: str) -> bool:
        return (self.folder / name).exists()

    def _made(self, name: str, write: Callable[[Path], None]) -> None:
        """Whole or not at all."""
        write(self.folder / "part")
        (self.folder / "part").replace(self.folder / name)


def network_of(part: str, path: Path, device: str) -> nn.Module:
    """A frozen network, made as the recipe in its weights says. part: a key of NETWORKS."""
    kind, field = NETWORKS[part]
    network: nn.Module = kind(getattr(recipe_of(path, part), field))
    return load_component(network, path, part).to(device).eval()
