//! Capabilities, given up for good.

use std::io;

use rustix::thread::{
    CapabilitiesSecureBits as Bits, CapabilitySet, CapabilitySets, capability_is_in_bounding_set,
    clear_ambient_capability_set, remove_capability_from_bounding_set, set_capabilities,
    set_capabilities_secure_bits,
};

/// More than any kernel has: 41 on Linux 5.9 to 6.18, and 64 have room in the sets.
const MOST: u32 = 64;

/// Empties the bounding set, so that no program file gives a capability back, and takes from uid 0
/// what it has by being uid 0. Needs `CAP_SETPCAP`, so it comes before any change of account.
pub(crate) fn empty_bounding_set() -> io::Result<()> {
    for number in 0..MOST {
        let one = CapabilitySet::from_bits_retain(1 << number);
        // The kernel does not know the number: there is none above it either.
        let Ok(is_in) = capability_is_in_bounding_set(one) else { break };
        if is_in {
            remove_capability_from_bounding_set(one)?;
        }
    }
    let bits =
        Bits::NO_ROOT | Bits::NO_ROOT_LOCKED | Bits::NO_CAP_AMBIENT_RAISE | Bits::NO_CAP_AMBIENT_RAISE_LOCKED;
    set_capabilities_secure_bits(bits)?;
    Ok(())
}

/// Empties the ambient, inheritable, permitted and effective sets. Anybody may.
pub(crate) fn give_up_all() -> io::Result<()> {
    clear_ambient_capability_set()?;
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })?;
    Ok(())
}
