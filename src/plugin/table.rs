//! Lines with columns.

/// The lines, columns aligned.
pub(super) fn aligned(lines: &[Vec<String>]) -> String {
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| lines.iter().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut out = String::new();
    for line in lines {
        let padded: Vec<_> = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        out += padded.join("   ").trim_end();
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_lines_have_no_tail() {
        let lines = [vec!["NAME", "ÄGE"], vec!["a", "1"], vec!["longer", ""]]
            .map(|line| line.into_iter().map(str::to_owned).collect());
        assert_eq!(aligned(&lines), "NAME     ÄGE\na        1\nlonger\n");
    }
}
