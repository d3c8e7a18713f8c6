//! A full disk and a read-only one, where a small file system can be mounted.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use super::{LONG, World, ends, tells};

/// A tmpfs over a directory, for as long as it lives.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(dir: &Path, size: &str) -> Option<SmallDisk> {
        fs::create_dir_all(dir).expect("a directory");
        let options = format!("size={size},mode=0700");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(dir).output();
        match mounted {
            Ok(output) if output.status.success() => Some(SmallDisk(dir.to_owned())),
            Ok(output) => skipped(&String::from_utf8_lossy(&output.stderr)),
            Err(error) => skipped(&error.to_string()),
        }
    }

    fn fill(&self) {
        let mut file = fs::File::create(self.0.join(".ballast")).expect("a file");
        while file.write_all(&[0; 1024]).is_ok() {}
    }

    fn free(&self) {
        fs::remove_file(self.0.join(".ballast")).expect("removed");
    }

    fn writable(&self, writable: bool) {
        let how = if writable { "remount,rw" } else { "remount,ro" };
        assert!(Command::new("mount").args(["-o", how]).arg(&self.0).status().expect("mount").success());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn skipped(why: &str) -> Option<SmallDisk> {
    println!("skipped: no small file system can be mounted here: {}", why.trim());
    None
}

/// A world whose store lies on a small disk.
async fn with_store_on(size: &str) -> Option<(World, SmallDisk)> {
    let world = World::start(|_| {}).await;
    let disk = SmallDisk::mount(&world.dir.path().join("disk"), size)?;
    let config = fs::read_to_string(&world.config).expect("a configuration");
    let (here, there) = (world.dir.path().join("hookturn.db"), disk.0.join("hookturn.db"));
    fs::write(&world.config, config.replace(&here.display().to_string(), &there.display().to_string())).expect("written");
    Some((world, disk))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_under_the_store_stops_everything_until_there_is_space() {
    let Some((world, disk)) = with_store_on("2m").await else { return };
    let _daemon = world.running().await;
    disk.fill();
    // What the file has already taken of the disk is used up first.
    let mut full = false;
    for _ in 0..200 {
        let asked = world.run_for(&["pause", "billing"], Duration::from_secs(5)).await;
        full = asked.is_none();
        if full {
            break;
        }
    }
    assert!(full, "the disk takes everything");
    let status = world.until("told", LONG, |status| status["diagnosis"] == "store-unreachable").await;
    tells(&status, &["hookturn.db", "no space left", "free"]);
    let begun = world.run_for(&["rotate-now", "billing", "--timeout", "2s"], Duration::from_secs(8)).await;
    assert!(begun.is_none_or(|output| !output.status.success()));
    assert!(world.sandbox.handle().patches().is_empty(), "a PATCH was sent without a record of it");
    ends(&world.run(&["status", "--check"]).await, 3, &["no space left"]);
    disk.free();
    world.until("well again", LONG, |status| status["diagnosis"] != "store-unreachable").await;
    assert!(world.run(&["resume", "billing"]).await.status.success());
    world.rotates(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_disk_under_the_store_is_told_at_the_start_and_waited_for_later() {
    let Some((world, disk)) = with_store_on("4m").await else { return };
    world.adopt().await;
    disk.writable(false);
    ends(&world.run(&["run"]).await, 69, &["hookturn.db", "ead-only"]);
    disk.writable(true);
    let _daemon = world.daemon();
    world.ready().await;
    world.until("confirmed", LONG, |status| status["confirmed"] == true).await;
    world.rotates(&[]).await;
}

/// A world whose keystore lies on a small disk.
async fn with_keystore_on(size: &str) -> Option<(World, SmallDisk)> {
    let mut disk = None;
    let world = World::start(|options| disk = SmallDisk::mount(&options.dir.join("keys"), size)).await;
    Some((world, disk?))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_or_read_only_disk_under_the_keystore_is_told_and_waited_for() {
    let Some((world, disk)) = with_keystore_on("256k").await else { return };
    let _daemon = world.running().await;
    let before = fs::read(&world.sandbox.keystore).expect("a keystore");
    disk.fill();
    let waits = world.run(&["rotate-now", "billing", "--timeout", "4s"]).await;
    ends(&waits, 3, &["keystore-unreachable", "secrets.json", "no space left", "free some space"]);
    assert_eq!(fs::read(&world.sandbox.keystore).expect("a keystore"), before, "the old content is untouched");
    assert!(world.sandbox.handle().patches().is_empty(), "a PATCH was sent");
    disk.free();
    world.rotates(&[]).await;

    disk.writable(false);
    let waits = world.run(&["rotate-now", "billing", "--unconfirmed", "--timeout", "4s"]).await;
    ends(&waits, 3, &["keystore-unreachable", "read-only file system", "ReadWritePaths="]);
    disk.writable(true);
    world.rotates(&[]).await;
}
