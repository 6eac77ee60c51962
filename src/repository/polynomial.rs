//! The polynomial that restic cuts its own chunks with. bkp only draws it and seeds its own cutter from it, but restic refuses a
//! repository whose polynomial is reducible.

/// Its degree; a prime, which makes the test short.
const DEGREE: u32 = 53;

/// Draws an irreducible polynomial over GF(2) from a source of random numbers.
pub(super) fn draw<E>(mut random: impl FnMut() -> Result<u64, E>) -> Result<u64, E> {
    loop {
        // One in 53 is irreducible.
        let candidate = random()? & ((1 << DEGREE) - 1) | (1 << DEGREE) | 1;
        if is_irreducible(candidate) {
            return Ok(candidate);
        }
    }
}

/// Rabin's test for a prime degree: no root in GF(2), and x^(2^53) = x modulo the polynomial.
pub(super) fn is_irreducible(polynomial: u64) -> bool {
    let has_degree = polynomial >> DEGREE == 1;
    let has_root = polynomial & 1 == 0 || polynomial.count_ones().is_multiple_of(2);
    let x = 0b10;
    has_degree && !has_root && (0..DEGREE).fold(x, |power, _| square(power, polynomial)) == x
}

/// Squares modulo the polynomial: over GF(2) that spreads the bits out, with a zero after each.
fn square(value: u64, polynomial: u64) -> u64 {
    let set = (0..DEGREE).filter(|bit| value >> bit & 1 == 1);
    let mut wide = set.fold(0u128, |wide, bit| wide | 1 << (2 * bit));
    for bit in (DEGREE..2 * DEGREE).rev() {
        if wide >> bit & 1 == 1 {
            wide ^= u128::from(polynomial) << (bit - DEGREE);
        }
    }
    // Fewer than 53 bits are left.
    u64::try_from(wide).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    #[test]
    fn polynomials_that_restic_drew_are_irreducible_and_their_neighbours_are_not() {
        // The first is the example of restic's format document; the second the default of its chunker's tests.
        for polynomial in [0x25_b468_838d_cb75, 0x3D_A335_8B4D_C173] {
            assert!(is_irreducible(polynomial), "{polynomial:x}");
            assert!(!is_irreducible(polynomial ^ 1), "{polynomial:x}: x divides it");
            assert!(!is_irreducible(polynomial ^ 2), "{polynomial:x}: x + 1 divides it");
            assert!(!is_irreducible(polynomial >> 1), "{polynomial:x}: of another degree");
        }
    }

    #[test]
    fn a_product_is_reducible() {
        // (x^3 + x + 1) times a polynomial of degree 50, both without roots.
        let (factor, other) = (0b1011u64, (1u64 << 50) | 0b11);
        let product = (0..51).filter(|bit| other >> bit & 1 == 1).fold(0, |sum, bit| sum ^ (factor << bit));
        assert!(product >> DEGREE == 1 && product & 1 == 1 && !product.count_ones().is_multiple_of(2));
        assert!(!is_irreducible(product));
    }

    #[test]
    fn what_is_drawn_is_irreducible() {
        let mut state = 1u64;
        let drawn = draw(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            Ok::<_, Infallible>(state >> 5)
        });
        assert!(drawn.is_ok_and(is_irreducible));
    }
}
