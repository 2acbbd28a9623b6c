"""How many floating-point operations the singular value decompositions of low_rank.py need."""


def flops_of_product(shape: tuple[int, int], k: int) -> int:
    """Return the number of floating-point operations of `svd_of_product`.

    With m = min(o, k), n = min(i, k) and t = min(m, n): 4 o k m + 4 i k n for two Householder QR factorisations with
    their bases (for k ≤ o the usual 4 o k² without the lower-order term), 2 m n k for the core, SVD(m, n), and 2 o m t
    + 2 i n t to multiply the bases by the singular vectors. SVD(m, n) = 6 max·min² + 20 min³ (Golub and Van Loan 2013,
    figure 8.6.1, R-SVD).

    Args:
        shape: The shape (o, i) of the product.
        k: The inner dimension of the factors.

    Returns:
        The number of operations.
    """
    o, i = shape
    m, n = min(o, k), min(i, k)
    return 4 * k * (o * m + i * n) + 2 * m * n * k + _svd(m, n) + 2 * (o * m + i * n) * min(m, n)


def flops_of_matrix(shape: tuple[int, int], rank: int, oversampling: int, iterations: int) -> int:
    """Return the number of floating-point operations of `svd_of_matrix`.

    With q = rank + oversampling and o ≥ i: 2 (2·iterations + 2) o i q for products with W and Wᵀ, 4 q² ((iterations +
    1) o + iterations·i) for the bases, SVD(q, i), and 2 o q² to multiply the basis by the singular vectors; SVD(o, i)
    alone where q ≥ min(o, i).

    Args:
        shape: The shape of the matrix; its order does not matter.
        rank: The number of triplets.
        oversampling: The number of directions beyond `rank`.
        iterations: The number of power iterations.

    Returns:
        The number of operations.
    """
    o, i = max(shape), min(shape)
    q = rank + oversampling
    if q >= i:
        return _svd(o, i)
    bases = 4 * q * q * ((iterations + 1) * o + iterations * i)
    return 4 * (iterations + 1) * o * i * q + bases + _svd(q, i) + 2 * o * q * q


def _svd(m: int, n: int) -> int:
    return 6 * max(m, n) * min(m, n) ** 2 + 20 * min(m, n) ** 3
