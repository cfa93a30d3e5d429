//! Every mount read-only at once: `mount_setattr(2)`, Linux 5.12.
//!
//! Without it each mount would have to be found and remounted with flags of its own. No safe
//! library makes this call, so this module is the fence around it.

use std::io;

use nix::libc;

/// `struct mount_attr` of linux/mount.h, as of Linux 5.12.
#[repr(C)]
#[derive(Default)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

const MOUNT_ATTR_RDONLY: u64 = 1;
const AT_RECURSIVE: libc::c_int = 0x8000;

/// Makes every mount of this namespace read-only, and none of them tell or hear of others outside.
#[expect(unsafe_code, reason = "mount_setattr has no safe wrapper; see the module's head")]
pub(super) fn all_read_only() -> io::Result<()> {
    let attr =
        MountAttr { attr_set: MOUNT_ATTR_RDONLY, propagation: libc::MS_PRIVATE, ..MountAttr::default() };
    // SAFETY: the path is a string that ends with a zero, the arguments a valid mount_attr of the
    // size given; the call writes to neither.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            c"/".as_ptr(),
            AT_RECURSIVE,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
