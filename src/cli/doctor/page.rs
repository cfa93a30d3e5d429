//! What `doctor` prints for people.

use crate::cli::print::{Paint, Print, clean};
use crate::model::finding::{Finding, Weight};

/// What was looked at, then each finding with its mend below it, then how many there are.
pub(super) fn page(findings: &[Finding], looked: &[String], print: &Print) -> Vec<String> {
    let mut lines: Vec<String> = looked.iter().map(|line| clean(line)).collect();
    if !looked.is_empty() && !findings.is_empty() {
        lines.push(String::new());
    }
    for finding in findings {
        let (word, colour) = match finding.weight {
            Weight::Wrong => ("wrong", Paint::Bad),
            Weight::Note => ("note ", Paint::Fair),
        };
        lines.push(format!("{}  {}", print.paint(colour, word), clean(&finding.to_string())));
        lines.push(format!("       {}", clean(&finding.mend.to_string())));
    }
    let wrong = findings.iter().filter(|finding| finding.weight == Weight::Wrong).count();
    lines.push(match wrong {
        0 => print.paint(Paint::Good, "nothing is wrong"),
        1 => "1 thing is wrong".to_owned(),
        more => format!("{more} things are wrong"),
    });
    lines
}
