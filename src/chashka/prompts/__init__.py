"""Text in, token ids out: the reader of the teacup vocabulary (numpy and the standard library only)."""

from chashka.prompts.vocabulary import Encoded, Vocabulary, normalise

__all__ = ["Encoded", "Vocabulary", "normalise"]
