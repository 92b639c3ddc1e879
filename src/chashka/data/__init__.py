"""From open packages to shards: sources, renders, captions, a licence manifest, the vocabulary."""
