//! That what happens in the directory is heard.

use super::super::watch::{Watcher, watch};
use super::*;

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        tokio::time::timeout(Duration::from_secs(20), test).await.expect("the hint never came");
    });
}

/// Waits for hints until a look finds what `text` says of alice.
async fn until(world: &mut World, watcher: &mut Watcher, text: Option<&str>) {
    let mut last = None;
    loop {
        world.now = clock::now();
        let look = world.dir.look(world.now, Complete::Named(&BTreeSet::new()), &nobody);
        match look.files.get(&user("alice")) {
            Some(FileState::Read(file)) => {
                last = Some(String::from_utf8(file.bytes.to_vec()).unwrap());
            }
            Some(FileState::Unchanged | FileState::Refused(_) | FileState::Sealed(..)) => {}
            None => last = None,
        }
        if last.as_deref() == text && look.again_at.is_none() {
            return;
        }
        match look.again_at {
            Some(at) => {
                drop(tokio::time::timeout(at.since(clock::now()), watcher.next()).await);
            }
            None => drop(watcher.next().await),
        }
    }
}

#[test]
fn a_written_file_is_hinted_at_with_its_name() {
    run(async {
        let world = World::new();
        let mut watcher = watch(&world.path(""));
        assert_eq!(watcher.problem(), None);
        world.put("alice.env", "A=1\n");
        let mut complete = BTreeSet::new();
        while !complete.contains(std::ffi::OsStr::new("alice.env")) {
            complete.extend(watcher.next().await.complete);
        }
        world.put(".tmp", "A=1\n");
        fs::rename(world.path(".tmp"), world.path("bob.env")).unwrap();
        while !complete.contains(std::ffi::OsStr::new("bob.env")) {
            complete.extend(watcher.next().await.complete);
        }
    });
}

#[test]
fn the_directory_may_come_later_go_away_and_come_back() {
    run(async {
        let mut world = World::new();
        let (env, away) = (world.path(""), world.above.path().join("away"));
        fs::remove_dir(&env).unwrap();
        let mut watcher = watch(&env);
        let make = || {
            fs::create_dir(&env).unwrap();
            fs::set_permissions(&env, fs::Permissions::from_mode(0o755)).unwrap();
        };
        make();
        world.put("alice.env", "A=1\n");
        until(&mut world, &mut watcher, Some("A=1\n")).await;
        fs::rename(&env, &away).unwrap();
        make();
        world.put("alice.env", "A=2\n");
        until(&mut world, &mut watcher, Some("A=2\n")).await;
        fs::remove_dir_all(&env).unwrap();
        make();
        until(&mut world, &mut watcher, None).await;
        world.put("alice.env", "A=3\n");
        until(&mut world, &mut watcher, Some("A=3\n")).await;
    });
}

#[test]
fn a_swap_of_links_is_heard() {
    run(async {
        let mut world = World::new();
        for (version, text) in [("..1", "A=1\n"), ("..2", "A=2\n")] {
            fs::create_dir(world.path(version)).unwrap();
            world.put(&format!("{version}/alice.env"), text);
        }
        symlink("..1", world.path("..data")).unwrap();
        symlink("..data/alice.env", world.path("alice.env")).unwrap();
        let mut watcher = watch(&world.path(""));
        until(&mut world, &mut watcher, Some("A=1\n")).await;
        symlink("..2", world.path("..data_tmp")).unwrap();
        fs::rename(world.path("..data_tmp"), world.path("..data")).unwrap();
        until(&mut world, &mut watcher, Some("A=2\n")).await;
    });
}
