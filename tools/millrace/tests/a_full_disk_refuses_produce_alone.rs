//! The real binary on a small file system that fills up. Mounting takes root; without it the test says so and ends.

#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod support;

use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreateTopicsRequest};
use kafka_protocol::messages::{ApiVersionsRequest, TopicName};
use kafka_protocol::protocol::StrBytes;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use support::{Broker, ask, create, fetch, folder, produce};

const STORAGE: i16 = 56;

/// An ext4 file system of 96 MiB, mounted while this lives.
struct Mount {
    folder: PathBuf,
}

impl Mount {
    fn new(folder: &Path) -> Result<Mount, String> {
        let run = |command: &mut Command| match command.output() {
            Ok(output) if output.status.success() => Ok(()),
            Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
            Err(error) => Err(error.to_string()),
        };
        let (image, mounted) = (folder.join("image"), folder.join("mounted"));
        std::fs::create_dir_all(&mounted).unwrap();
        std::fs::File::create(&image).unwrap().set_len(96 << 20).unwrap();
        run(Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0"]).arg(&image))?;
        run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&mounted))?;
        Ok(Mount { folder: mounted })
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // A killed broker's ring is taken apart after its end, and holds files until then. A test that failed has said more already.
        for _ in 0..100 {
            if Command::new("umount").arg(&self.folder).status().is_ok_and(|status| status.success()) {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

#[test]
fn produce_is_refused_until_there_is_room_and_all_else_goes_on() {
    let base = folder("full-disk");
    let mount = match Mount::new(&base) {
        Ok(mount) => mount,
        Err(error) => {
            println!("skipped: a small file system cannot be mounted here: {error}");
            return;
        }
    };
    let data = mount.folder.join("data");
    let settings = ["shards=1", "shard.pin.enable=false", "journal.max.bytes=16777216", "log.segment.bytes=4194304"];
    let broker = Broker::start(&[&data], &settings).unwrap();
    let mut client = broker.connect();
    create(&mut client, 1);
    assert_eq!(produce(&mut client, 0, 500_000), 0);
    // So little is left that the next segments do not fit.
    let ballast = mount.folder.join("ballast");
    let output = Command::new("df").args(["--output=avail", "-B1"]).arg(&mount.folder).output().unwrap();
    let free: u64 = String::from_utf8_lossy(&output.stdout).lines().nth(1).unwrap().trim().parse().unwrap();
    assert!(Command::new("fallocate").arg("-l").arg((free - (6 << 20)).to_string()).arg(&ballast).status().unwrap().success());
    let mut acknowledged = 1;
    while produce(&mut client, 0, 500_000) == 0 {
        acknowledged += 1;
        assert!(acknowledged < 400, "the disk is full at last");
    }
    for round in 0..5 {
        assert_eq!(produce(&mut client, 0, 500_000), STORAGE);
        let name = TopicName(StrBytes::from_string(format!("made-{round}")));
        let made = CreatableTopic::default().with_name(name).with_num_partitions(1).with_replication_factor(1);
        let request = CreateTopicsRequest::default().with_topics(vec![made]).with_timeout_ms(10_000);
        assert_eq!(ask(&mut client, 5, &request).topics[0].error_code, 0);
        let (code, high_watermark, bytes) = fetch(&mut client, 0, 0);
        assert!(code == 0 && high_watermark >= acknowledged && bytes > 0);
        ask(&mut client, 3, &ApiVersionsRequest::default());
    }
    std::fs::remove_file(&ballast).unwrap();
    let mut code = STORAGE;
    for _ in 0..100 {
        code = produce(&mut client, 0, 500_000);
        if code == 0 {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(code, 0, "produce goes on without a restart");
    let (code, high_watermark, _) = fetch(&mut client, 0, 0);
    assert!(code == 0 && high_watermark > acknowledged);
    drop(broker);
    drop(mount);
    std::fs::remove_dir_all(&base).unwrap();
}
