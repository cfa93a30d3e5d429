//! What runs are kept from, and what a server needs of it all the same.

use std::path::{Component, Path, PathBuf};

use super::report::Report;
use super::table::Table;
use crate::model::cage::{Allow, Isolation, Tier};

/// What `isolation` takes, for messages.
pub(super) const ISOLATION: &str = "\"auto\", \"require\", \"landlock\", \"namespaces\" or \"accounts\"";

/// `[daemon] isolation`
pub(super) fn isolation(text: &str) -> Option<Isolation> {
    match text {
        "auto" => Some(Isolation::Auto),
        "require" => Some(Isolation::Require),
        text => {
            let tiers = [Tier::Landlock, Tier::Namespaces, Tier::Accounts];
            tiers.into_iter().find(|tier| tier.as_str() == text).map(Isolation::AtLeast)
        }
    }
}

/// `[server.NAME.allow]`
pub(super) fn allow(mut table: Table<'_, '_>, report: &mut Report<'_>) -> Allow {
    let mut places = |key, table: &mut Table<'_, '_>| -> Option<Vec<PathBuf>> {
        let what = "a list of directories, each beginning with / or ~/: [\"~/.npm\"]";
        table.take(key)?.read(what, report, |value| {
            value.as_array()?.iter().map(|item| place(item.get_ref().as_str()?)).collect()
        })
    };
    let paths = places("paths", &mut table);
    let write = places("write", &mut table);
    let listen = table.take("listen").and_then(|entry| {
        entry.read("a list of ports from 1 to 65535, without quotes: [3334]", report, |value| {
            value.as_array()?.iter().map(|item| port(item.get_ref().as_integer()?)).collect()
        })
    });
    let mut flag = |key| table.take(key).and_then(|e| e.flag(report)).unwrap_or(false);
    let allow = Allow {
        unix_sockets: flag("unix_sockets"),
        namespaces: flag("namespaces"),
        modes: flag("modes"),
        paths: paths.unwrap_or_default(),
        write: write.unwrap_or_default(),
        listen: listen.unwrap_or_default(),
    };
    table.finish(report);
    allow
}

/// A place that means one thing wherever it is read from. Not the whole machine.
fn place(text: &str) -> Option<PathBuf> {
    let path = Path::new(text);
    let mut parts = path.components();
    let begins = match parts.next()? {
        Component::RootDir => parts.clone().next().is_some(),
        Component::Normal(home) => home == "~",
        Component::Prefix(_) | Component::CurDir | Component::ParentDir => false,
    };
    let is_plain = parts.all(|part| matches!(part, Component::Normal(_)));
    (begins && is_plain && !text.contains(char::is_control)).then(|| path.to_path_buf())
}

fn port(integer: &toml::de::DeInteger<'_>) -> Option<u16> {
    u16::from_str_radix(integer.as_str(), integer.radix()).ok().filter(|port| *port > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_begins_at_the_root_or_at_home_and_never_leads_back() {
        for good in ["/opt/x", "~/.npm", "~", "/srv"] {
            assert_eq!(place(good), Some(good.into()), "{good}");
        }
        for bad in ["", "/", "x", "./x", "../x", "/opt/../etc", "~alice/x", "~/../bob", "/a\nb"] {
            assert_eq!(place(bad), None, "{bad}");
        }
    }
}
