"""Where the auxiliary models lie, below the folder that the bake puts them into."""

EMBEDDING = "embedding"
SPEECH = "speech"
