//! The table as it is kept: JSON, with a version, checked when it is read back.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::{InstanceId, ServerName, UserName};

use super::{Ports, Row, Taken};

/// The table as JSON.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Kept {
    version: u32,
    instances: Vec<KeptRow>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct KeptRow {
    user: UserName,
    server: ServerName,
    door: u16,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    backend: Option<u16>,
}

/// Why a kept table is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotATable {
    #[error("port table of version {0}, written by a newer mcpsup")]
    Version(u32),
    #[error("port {0} stands twice in the port table")]
    Twice(u16),
}

impl From<Ports> for Kept {
    fn from(ports: Ports) -> Self {
        let row = |(id, row): (InstanceId, Row)| KeptRow {
            user: id.user,
            server: id.server,
            door: row.door,
            backend: row.backend,
        };
        Self { version: 1, instances: ports.rows.into_iter().map(row).collect() }
    }
}

impl TryFrom<Kept> for Ports {
    type Error = NotATable;

    fn try_from(kept: Kept) -> Result<Self, NotATable> {
        if kept.version != 1 {
            return Err(NotATable::Version(kept.version));
        }
        let mut taken = Taken([0; 1024]);
        let mut rows = BTreeMap::new();
        for row in kept.instances {
            for port in std::iter::once(row.door).chain(row.backend) {
                if taken.has(port) {
                    return Err(NotATable::Twice(port));
                }
                taken.add(port);
            }
            let id = InstanceId::new(row.user, row.server);
            rows.insert(id, Row { door: row.door, backend: row.backend });
        }
        Ok(Self { rows })
    }
}
