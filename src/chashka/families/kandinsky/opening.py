"""Opens the teacup's files."""
COMPONENTS = ("encoder", "decoder", "text_contrastive", "text_t5", "text_head", "unet")
def open_teacup(preset, choice): raise NotImplementedError
