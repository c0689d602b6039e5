//! Checks the subject lines of commits.

use super::tree::Tree;

const LONGEST: usize = 72;

pub(super) fn check(tree: &Tree) -> Vec<String> {
    let long = tree.subjects.iter().filter(|subject| subject.chars().count() > LONGEST);
    long.map(|subject| format!("{} characters: {subject}", subject.chars().count())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_of_more_than_72_characters_is_a_violation() {
        let with = |length| Tree { subjects: vec!["é".repeat(length)], ..Tree::default() };
        assert!(check(&with(72)).is_empty());
        assert_eq!(check(&with(73)).len(), 1);
    }
}
