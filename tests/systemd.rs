//! The units are what systemd understands, and keep the sandbox that they promise.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// systemd's exposure, in tenths of its 0 to 10. The floor of a service that talks to the internet is near 10.
const SERVICE_EXPOSURE: &str = "20";
const RELOAD_EXPOSURE: &str = "20";

#[test]
fn systemd_finds_nothing_to_say_about_the_units() {
    let Some(units) = Units::lay_out() else { return };
    for unit in [
        "hookturn.service",
        "hookturn-receive.socket",
        "hookturn-receive@1.service",
        "hookturn-reload@billing.path",
        "hookturn-reload@billing.service",
    ] {
        let said = units.analyze(&["verify", "--man=no", "--recursive-errors=no", unit]);
        assert!(said.status.success() && said.stderr.is_empty(), "{unit}: {}", text(&said));
    }
}

#[test]
fn the_sandbox_stays_as_tight_as_it_is() {
    let Some(units) = Units::lay_out() else { return };
    for (unit, threshold) in [
        ("hookturn.service", SERVICE_EXPOSURE),
        ("hookturn-receive@1.service", SERVICE_EXPOSURE),
        ("hookturn-reload@billing.service", RELOAD_EXPOSURE),
    ] {
        let threshold = format!("--threshold={threshold}");
        let said = units.analyze(&["security", "--offline=true", "--no-pager", &threshold, unit]);
        assert!(said.status.success(), "{unit}: {}", text(&said));
    }
}

/// What the sandbox must leave possible is easily lost in a well-meant tightening.
#[test]
fn the_service_can_still_do_its_work() {
    let service = fs::read_to_string(source("hookturn.service")).expect("the unit");
    let says = |line: &str| service.lines().any(|other| other == line);
    for line in [
        "Type=notify",
        "ExecStartPre=-/usr/local/bin/hookturn check --offline",
        "RestartPreventExitStatus=78",
        "StateDirectory=hookturn hookturn-keys",
        "RuntimeDirectory=hookturn",
        "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK",
        // Of the groups of system calls, the last word: a keystore keeps its group.
        "SystemCallFilter=@chown",
    ] {
        assert!(says(line), "missing: {line}");
    }
    for setting in ["ProcSubset=", "PrivateUsers=", "PrivateNetwork=", "IPAddressDeny="] {
        assert!(!service.lines().any(|line| line.starts_with(setting)), "{setting} takes something that is needed");
    }
}

/// The credentials of the unit are the ones that the configuration asks for when nothing is said.
#[test]
fn the_unit_hands_over_the_credentials_of_the_default_configuration() {
    let service = fs::read_to_string(source("hookturn.service")).expect("the unit");
    let defaults =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("config/hookturn.toml")).expect("the configuration");
    for name in ["dialnexa-api-key", "hookturn-sealing-key"] {
        assert!(service.contains(&format!("LoadCredential={name}:/etc/hookturn/{name}")), "{name} is not loaded");
        assert!(defaults.contains(&format!("{{ credential = \"{name}\" }}")), "{name} is not asked for");
    }
}

/// The units in a directory of their own, with a program that is on every machine in place of the one that is not installed.
struct Units(tempfile::TempDir);

impl Units {
    fn lay_out() -> Option<Units> {
        if Command::new("systemd-analyze").arg("--version").output().is_err() {
            println!("skipped: systemd-analyze is not on this machine");
            return None;
        }
        let dir = tempfile::tempdir().expect("a directory");
        let names = [
            "hookturn.service",
            "hookturn-receive.socket",
            "hookturn-receive@.service",
            "hookturn-reload@.path",
            "hookturn-reload@.service",
        ];
        for name in names {
            let unit = fs::read_to_string(source(name)).expect("a unit").replace("/usr/local/bin/hookturn", "/bin/true");
            let unit = unit.replace("ExecStart=systemctl", "ExecStart=/bin/true");
            let unit = unit.replace("ExecReload=kill -HUP", "ExecReload=/bin/true");
            fs::write(dir.path().join(name), unit).expect("a copy");
        }
        // The instance of a template is found by the template's link.
        for (template, instance) in [
            ("hookturn-reload@.path", "hookturn-reload@billing.path"),
            ("hookturn-reload@.service", "hookturn-reload@billing.service"),
            ("hookturn-receive@.service", "hookturn-receive@1.service"),
        ] {
            std::os::unix::fs::symlink(template, dir.path().join(instance)).expect("a link");
        }
        Some(Units(dir))
    }

    fn analyze(&self, arguments: &[&str]) -> Output {
        let (unit, options) = arguments.split_last().expect("a unit");
        let analyze = Command::new("systemd-analyze").args(options).arg(self.0.path().join(unit)).env("LC_ALL", "C").output();
        analyze.expect("systemd-analyze runs")
    }
}

fn source(unit: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd").join(unit)
}

fn text(said: &Output) -> String {
    format!("{}\n{}", String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr))
}
