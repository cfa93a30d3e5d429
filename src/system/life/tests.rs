//! A life without a server: what is told, and what is let go of, when nothing begins.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::mpsc;

use super::super::launcher::Launcher;
use super::super::process::{News, Shared};
use super::*;
use crate::model::Moment;
use crate::system::account;
use crate::system::ready::Hub;

/// Counts how often a run was over.
#[derive(Default)]
struct Ends(AtomicUsize);

impl Output for Ends {
    fn take(&self, _: Moment, _: &[u8]) -> bool {
        false
    }
    fn take_line(&self, _: Moment, _: &[u8], _: bool) -> bool {
        false
    }
    fn rest(&self) {}
    fn end(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn spec() -> Arc<Spec> {
    Arc::new(Spec::example())
}

fn beginning(spec: Arc<Spec>) -> Beginning {
    let instance = InstanceId::new("alice".parse().unwrap(), "notes".parse().unwrap());
    Beginning { instance, spec, talk: None }
}

fn life(runs: &Path, launcher: Arc<Launcher>) -> (Arc<Life>, mpsc::UnboundedReceiver<News>) {
    let (tell, news) = mpsc::unbounded_channel();
    let shared = Shared {
        state: runs.to_owned(),
        runtime: runs.to_owned(),
        runs: runs.to_owned(),
        news: tell,
        launcher,
        hub: Arc::new(Hub::new().unwrap()),
    };
    let marked = (runs.join("tmp"), account::own_uid());
    (Arc::new(Life::new(RunId(1), (Held::Session, false), marked, None, Arc::new(shared))), news)
}

#[tokio::test]
async fn a_run_that_is_killed_while_it_waits_for_the_launcher_does_not_wait_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let (launcher, _other_end) = Launcher::mute();
    let (life, mut news) = life(dir.path(), launcher);
    let ends = Arc::new(Ends::default());
    let task = tokio::spawn(begin(Arc::clone(&life), Box::new(beginning(spec())), Arc::clone(&ends) as _));
    tokio::task::yield_now().await;
    life.kill.notify_one();
    task.await.unwrap();
    assert!(matches!(news.recv().await.unwrap().what, What::Exited(Exit::NotStarted(_))));
    assert_eq!(news.recv().await.unwrap().what, What::Gone);
    assert!(!life.dir().path().exists());
}

#[tokio::test]
async fn the_output_of_a_run_that_never_began_is_ended_before_its_exit_is_told() {
    let (launcher, _other_end) = Launcher::mute();
    let (life, mut news) = life(Path::new("/nowhere"), launcher);
    let ends = Arc::new(Ends::default());
    let spec = spec();
    let task = tokio::spawn(begin(
        Arc::clone(&life),
        Box::new(beginning(Arc::clone(&spec))),
        Arc::clone(&ends) as _,
    ));
    assert!(matches!(news.recv().await.unwrap().what, What::Exited(Exit::NotStarted(_))));
    assert_eq!(ends.0.load(Ordering::Relaxed), 1);
    assert_eq!(Arc::strong_count(&spec), 1);
    life.kill.notify_one();
    task.await.unwrap();
    assert_eq!(ends.0.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn the_output_of_a_run_that_was_found_dead_is_ended_before_it_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let (launcher, _other_end) = Launcher::mute();
    let (life, mut news) = life(dir.path(), launcher);
    life.dir().create(false).unwrap();
    let ends = Arc::new(Ends::default());
    let task = tokio::spawn(resume(Arc::clone(&life), (i32::MAX, false), Arc::clone(&ends) as _, None));
    assert_eq!(news.recv().await.unwrap().what, What::Exited(Exit::Unknown));
    life.kill.notify_one();
    assert_eq!(news.recv().await.unwrap().what, What::Gone);
    assert_eq!(ends.0.load(Ordering::Relaxed), 1);
    task.await.unwrap();
}
