"""The version of the package, and the Spark and Delta that it is tested with. Each is written here, and nowhere else.

`setup.py` runs this file too, so it imports nothing.
"""

VERSION = "0.1.0"
# The oldest and the newest, as requirements name them.
SPARK_TESTED = ("4.1", "4.2.0")
DELTA_TESTED = ("4.1", "4.4.0")
