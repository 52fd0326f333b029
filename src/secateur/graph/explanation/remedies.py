"""What would free channels that stay, for every kind of reason."""

from __future__ import annotations

import re

ASK_MODEL = (
    "Read it from an attribute (self.n) or from a tensor's size (x.shape[1]); it is then rewritten with the cut."
)
MIX = "Only a layer that reads all of these channels, such as a 1x1 convolution or a linear layer, would free them."
NOTHING = "Nothing to free here: this is what the operation is for."

# The first pattern that is found in the reason counts.
REMEDIES: tuple[tuple[str, str], ...] = (
    (r"was not reached", "Trace with a list of examples that together reach every layer, or take that layer out."),
    (r"leave the model", "Trace with free_outputs=True if what comes after the model can be cut with it."),
    (r"the model's input", "Nothing to free; a cut here would change how the model is called."),
    (
        r"no parameter or buffer",
        "Register that tensor as a parameter or buffer of its module; it is then cut with them.",
    ),
    (r"whose channels stay", "Free those first."),
    (r"rows of the embedding", "Nothing to free: the rows are the words that may come in."),
    (r"without channels|no channels to cut|have none to cut", MIX),
    (r"rolled|padding|cropped", "Do it with a layer that has weights, such as a 1x1 convolution."),
    (r"come from a buffer|coordinates", "Nothing to free: this is data."),
    (r"no channels$|positions or entries", "Nothing to free: positions of a picture or a text are no channels."),
    (r"whole head or part", "Trace with attention='heads' if whole heads may go instead of channels of each."),
    (r"is a number in the code", ASK_MODEL),
    (r"used as a number", "Compute that number in __init__ and keep it as an attribute of its own."),
    (r"is compared in size", "Make the comparison in __init__ and keep what comes of it as an attribute."),
    (r"no layer reads", "Let a convolution or a linear layer read them, or leave out what nobody reads."),
    (r"no rule for the operation", "Write it with other operations, or ask for a rule for this one."),
    (r"window|diagonal|these positions|two labelled dimensions", MIX),
    (r"unequal parts", "Give the layer before a number of channels that the parts divide."),
    (r"by number|every second channel", "Take a range up to an attribute, x[:, : self.n], instead of single numbers."),
    (r"by index|by these numbers", "Nothing to free as long as the code takes them by index."),
    (r"position of a value|depends on the order", MIX),
    (r"within these groups", "Nothing to free: each group sums over channels of its own."),
    (r"written in place", "Put the parts together with torch.cat instead of writing into a tensor."),
    (r"put beside others|pixels are shuffled", "Merge the two dimensions before, with flatten or reshape."),
    (r"both sides of a bound|every part of a split", "Nothing to free: the last channel of each part must stay."),
)


def remedy(text: str) -> str:
    """Return what would free the channels that stay for the reason `text`."""
    return next((advice for pattern, advice in REMEDIES if re.search(pattern, text)), NOTHING)
