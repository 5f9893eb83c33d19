"""All measures of drawn images at once."""

import jax
import numpy as np

from diffusion_eqx._typing import Images, Labels, PRNGKey
from diffusion_eqx.data import ImagesInMemory
from diffusion_eqx.evaluation.classifier import ImageClassifier, accuracy
from diffusion_eqx.evaluation.features import Features, checked_images, extract
from diffusion_eqx.evaluation.frechet import frechet_of_moments, moments
from diffusion_eqx.evaluation.kernel import kernel_distance
from diffusion_eqx.evaluation.neighbours import density_coverage, precision_recall
from diffusion_eqx.evaluation.reference import Reference

_SUBSET = 1000


def evaluate(
    images: np.ndarray | Images | ImagesInMemory,
    reference: Reference,
    features: Features,
    labels: np.ndarray | Labels | None = None,
    classifier: ImageClassifier | None = None,
    *,
    batch_size: int = 250,
    key: PRNGKey | None = None,
) -> dict[str, float]:
    """How good images are, by every measure of this room; plain numbers, which JSON can say.

    - `frechet_distance`, of all images and all of the reference.
    - `kernel_distance`, the mean of 100 subsets of at most 1000 rows.
    - `precision` and `recall`, by 3 neighbours; `density` and `coverage`, by 5. The larger of the two sets
      is cut to as many rows as the smaller, since these depend on how many there are.
    - `accuracy`, if labels and a classifier are given: the share of images that it assigns to their label.

    Images that are floats are clipped to [−1, 1], and rounded to 8 bits if the reference was made of bytes.

    - `images`: (N, height, width, channels), uint8 or float in [−1, 1], at least 6; or a data set of such.
    - `reference`: as `make_reference` or `load_reference` gives it.
    - `features`: the function that the reference was made by.
    - `labels`: (N,) integers, the classes that were asked for.
    - `classifier`: a `Classifier`, a `CleanClassifier`, or a module with their members.
    - `batch_size`: how many are computed at once; it changes nothing but memory and time.
    - `key`: draws subsets; by default one that is the same for all, so that figures compare.

    **Raises:** `ValueError` if the features are of another function than those of the reference, or have
    another width; if images have another shape; if there are fewer than 6; and as `extract` and `accuracy`.
    """
    reference.check(features)
    found = checked_images(images.images if isinstance(images, ImagesInMemory) else images)
    found = reference.preprocessing.apply(found)
    rows = extract(features, found, batch_size=batch_size)
    reference.check(features, rows.shape[1])
    key_kernel, key_rows = jax.random.split(jax.random.key(0) if key is None else key)
    fewer = min(len(rows), reference.count)
    some, real = (_cut(each, fewer, key_rows) for each in (rows, reference.features))
    by_three, by_five = precision_recall(some, real), density_coverage(some, real)
    measures = {
        "frechet_distance": frechet_of_moments(
            *moments(rows), reference.mean, reference.covariance
        ),
        "kernel_distance": kernel_distance(
            rows, reference.features, subset_size=min(_SUBSET, fewer), key=key_kernel
        ),
        "precision": by_three.precision,
        "recall": by_three.recall,
        "density": by_five.density,
        "coverage": by_five.coverage,
    }
    if labels is not None and classifier is not None:
        measures["accuracy"] = accuracy(classifier, found, labels)
    return measures


def _cut(rows: np.ndarray, count: int, key: PRNGKey) -> np.ndarray:
    """So many rows, drawn without repetition; all of them as they are."""
    if len(rows) == count:
        return rows
    return rows[np.asarray(jax.random.permutation(key, len(rows))[:count])]
