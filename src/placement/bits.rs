//! A set of small numbers, as bits.

const BITS: usize = u64::BITS as usize;

/// Numbers below a bound that grows as needed.
#[derive(Clone, Debug, Default)]
pub(super) struct Bits(Vec<u64>);

impl Bits {
    /// The numbers below `end`.
    pub fn below(end: usize) -> Self {
        let mut words = vec![u64::MAX; end / BITS];
        words.push(mask(end) - 1);
        Self(words)
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    /// Whether `number` is in the set.
    pub fn contains(&self, number: usize) -> bool {
        self.0.get(number / BITS).is_some_and(|word| word & mask(number) != 0)
    }

    /// Puts `number` in or takes it out. Whether it was the other way.
    pub fn set(&mut self, number: usize, present: bool) -> bool {
        if self.contains(number) == present {
            return false;
        }
        if number / BITS >= self.0.len() {
            self.0.resize(number / BITS + 1, 0);
        }
        if let Some(word) = self.0.get_mut(number / BITS) {
            *word ^= mask(number);
        }
        true
    }

    /// Takes everything out.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// The numbers in the set, ascending.
    pub fn iter(&self) -> impl Iterator<Item = usize> {
        numbers(self.0.iter().copied())
    }

    /// The numbers in both sets.
    pub fn and(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(a, b)| a & b).collect())
    }

    /// Whether some number is in both sets.
    pub fn meets(&self, other: &Self) -> bool {
        // Several words at once, as the processor can.
        let (a, b) = (self.0.chunks(8), other.0.chunks(8));
        a.zip(b).any(|(a, b)| a.iter().zip(b).fold(0, |met, (a, b)| met | a & b) != 0)
    }

    /// The numbers in both sets, ascending.
    pub fn common(&self, other: &Self) -> impl Iterator<Item = usize> {
        numbers(self.0.iter().zip(&other.0).map(|(a, b)| a & b))
    }
}

fn mask(number: usize) -> u64 {
    1 << (number % BITS)
}

fn numbers(words: impl Iterator<Item = u64>) -> impl Iterator<Item = usize> {
    words.enumerate().filter(|(_, word)| *word != 0).flat_map(|(at, mut word)| {
        std::iter::from_fn(move || {
            let lowest = (word != 0).then(|| at * BITS + word.trailing_zeros() as usize)?;
            word &= word - 1;
            Some(lowest)
        })
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::collection::btree_set;
    use proptest::prelude::*;

    use super::*;

    fn bits(numbers: &BTreeSet<usize>) -> Bits {
        let mut bits = Bits::default();
        for number in numbers {
            assert!(bits.set(*number, true) && !bits.set(*number, true));
        }
        bits
    }

    proptest! {
        #[test]
        fn it_is_the_set_it_stands_for(
            a in btree_set(0..300_usize, 0..100), b in btree_set(0..200_usize, 0..100), c in btree_set(0..400_usize, 0..300),
        ) {
            let (a_bits, b_bits, mut c_bits) = (bits(&a), bits(&b), bits(&c));
            prop_assert!(a_bits.and(&b_bits).iter().eq(a.intersection(&b).copied()));
            prop_assert!(a_bits.common(&c_bits).eq(a.intersection(&c).copied()));
            prop_assert_eq!(a_bits.meets(&b_bits), !a.is_disjoint(&b));
            prop_assert!((0..500).all(|number| c_bits.contains(number) == c.contains(&number)));
            for number in &a {
                prop_assert_eq!(c_bits.set(*number, false), c.contains(number));
            }
            prop_assert!(c_bits.iter().eq(c.difference(&a).copied()));
            prop_assert_eq!(c_bits.is_empty(), c.is_subset(&a));
            prop_assert!(Bits::below(c.len()).iter().eq(0..c.len()));
        }
    }
}
