//! Tables that were filled one by one, made anew in one go.

use std::collections::BTreeMap;

/// Makes the table as small as it can be: one that is filled in ascending order stays half empty.
pub fn pack<K: Ord, V>(table: &mut BTreeMap<K, V>) {
    *table = std::mem::take(table).into_iter().collect();
}
