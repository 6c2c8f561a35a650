"""The classes that Caltech-101 and Quick, Draw! share, with their names on both sides.

Caltech's are the folders of its archive, as published; Quick, Draw!'s are the words that players were asked to draw, from
`categories.txt` of googlecreativelab/quickdraw-dataset. Which of them mean one thing is this project's judgement: photos of
Dalmatians are the dogs, of pigeons the birds, and lotus, sunflower and water lily the flowers. Left out are faces, which are
people's, and pairs that share a word only (a roller skate and an inline skate, a floor lamp and a lamp on a table).
"""

from __future__ import annotations

from typing import NamedTuple


class Shared(NamedTuple):
    """A class that both have. word: of Quick, Draw!; folders: of Caltech-101; new: whether none of ImageNet's labels names it."""

    word: str
    folders: tuple[str, ...]
    new: bool = False


CLASSES: dict[str, Shared] = {
    "airplane": Shared("airplane", ("airplanes",)),
    "ant": Shared("ant", ("ant",)),
    "binoculars": Shared("binoculars", ("binocular",)),
    "bird": Shared("bird", ("pigeon",), True),
    "brain": Shared("brain", ("brain",), True),
    "butterfly": Shared("butterfly", ("butterfly",)),
    "camera": Shared("camera", ("camera",)),
    "cannon": Shared("cannon", ("cannon",)),
    "car": Shared("car", ("car_side",)),
    "ceiling_fan": Shared("ceiling fan", ("ceiling_fan",), True),
    "cell_phone": Shared("cell phone", ("cellphone",)),
    "chair": Shared("chair", ("chair", "windsor_chair")),
    "chandelier": Shared("chandelier", ("chandelier",), True),
    "crab": Shared("crab", ("crab",)),
    "crocodile": Shared("crocodile", ("crocodile", "crocodile_head")),
    "cup": Shared("cup", ("cup",)),
    "dog": Shared("dog", ("dalmatian",)),
    "dolphin": Shared("dolphin", ("dolphin",), True),
    "elephant": Shared("elephant", ("elephant",)),
    "flamingo": Shared("flamingo", ("flamingo",)),
    "flower": Shared("flower", ("lotus", "sunflower", "water_lilly"), True),
    "guitar": Shared("guitar", ("electric_guitar",)),
    "headphones": Shared("headphones", ("headphone",), True),
    "hedgehog": Shared("hedgehog", ("hedgehog",), True),
    "helicopter": Shared("helicopter", ("helicopter",), True),
    "kangaroo": Shared("kangaroo", ("kangaroo",), True),
    "laptop": Shared("laptop", ("laptop",)),
    "lobster": Shared("lobster", ("lobster",)),
    "motorbike": Shared("motorbike", ("Motorbikes",)),
    "octopus": Shared("octopus", ("octopus",), True),
    "panda": Shared("panda", ("panda",)),
    "piano": Shared("piano", ("grand_piano",)),
    "pizza": Shared("pizza", ("pizza",)),
    "rhinoceros": Shared("rhinoceros", ("rhino",), True),
    "sailboat": Shared("sailboat", ("ketch", "schooner")),
    "saxophone": Shared("saxophone", ("saxophone",)),
    "scissors": Shared("scissors", ("scissors",), True),
    "scorpion": Shared("scorpion", ("scorpion",)),
    "sea_turtle": Shared("sea turtle", ("hawksbill",)),
    "soccer_ball": Shared("soccer ball", ("soccer_ball",)),
    "stop_sign": Shared("stop sign", ("stop_sign",), True),
    "strawberry": Shared("strawberry", ("strawberry",)),
    "umbrella": Shared("umbrella", ("umbrella",)),
    "wristwatch": Shared("wristwatch", ("watch",)),
}
"""By the name under which a class is kept. New ones are unseen by the suggested split: nor have the weights been told of them."""
