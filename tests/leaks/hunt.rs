use std::{
    fs,
    path::{Path, PathBuf},
    process::Output,
};

use base64::{
    Engine,
    engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};

/// What must not be found, and where it was.
#[derive(Default)]
pub struct Hunt {
    canaries: Vec<(String, Vec<Vec<u8>>)>,
    places: Vec<(String, Vec<u8>)>,
}

impl Hunt {
    pub fn canary(&mut self, name: &str, value: &str) {
        if self.canaries.iter().all(|(known, _)| known != name) {
            self.canaries.push((name.to_owned(), forms(value)));
        }
    }

    pub fn place(&mut self, name: &str, content: &[u8]) {
        self.places.push((name.to_owned(), content.to_vec()));
    }

    pub fn printed(&mut self, name: &str, output: &Output) {
        self.place(&format!("stdout of {name}"), &output.stdout);
        self.place(&format!("stderr of {name}"), &output.stderr);
    }

    /// What anybody can see of a process.
    pub fn process(&mut self, name: &str, id: u32) {
        for file in ["cmdline", "environ", "comm", "status"] {
            self.place(&format!("{file} of {name}"), &fs::read(format!("/proc/{id}/{file}")).unwrap_or_default());
        }
    }

    /// Every file below `dir` but those where a secret belongs. Answers which.
    pub fn files(&mut self, dir: &Path, belongs: &dyn Fn(&Path) -> bool) -> Vec<PathBuf> {
        let mut searched = Vec::new();
        for entry in fs::read_dir(dir).expect("a directory").flatten() {
            let (path, kind) = (entry.path(), entry.file_type().expect("a kind"));
            if kind.is_dir() {
                searched.extend(self.files(&path, belongs));
            } else if kind.is_file() && !belongs(&path) {
                // Status files come and go.
                if let Ok(content) = fs::read(&path) {
                    self.place(&path.display().to_string(), &content);
                    searched.push(path);
                }
            }
        }
        searched
    }

    pub fn end(self) {
        assert!(!self.places.is_empty() && !self.canaries.is_empty());
        let mut found = Vec::new();
        for (place, content) in &self.places {
            for (name, forms) in &self.canaries {
                for form in forms {
                    if let Some(at) = content.windows(form.len()).position(|window| window == &form[..]) {
                        let around = &content[at.saturating_sub(120)..(at + form.len() + 60).min(content.len())];
                        found.push(format!("{name} in {place}: ...{}...", String::from_utf8_lossy(around)));
                        break;
                    }
                }
            }
        }
        let searched: usize = self.places.iter().map(|(_, content)| content.len()).sum();
        println!("{} canaries, {} places, {searched} bytes", self.canaries.len(), self.places.len());
        assert!(found.is_empty(), "{}", found.join("\n"));
    }
}

/// Both halves of a value, as each may be written.
fn forms(value: &str) -> Vec<Vec<u8>> {
    // What every secret begins with is none.
    let value = value.trim_start_matches("whsec_").trim_start_matches("key_canary:");
    let (first, second) = value.split_at(value.len() / 2);
    let mut forms = Vec::new();
    for half in [first, second] {
        assert!(half.len() >= 8, "too short to be told from anything else: {half}");
        forms.push(half.to_owned());
        forms.push(hex::encode(half));
        forms.push(hex::encode_upper(half));
        forms.push(
            half.bytes()
                .map(|b| if b.is_ascii_alphanumeric() { char::from(b).to_string() } else { format!("%{b:02X}") })
                .collect(),
        );
        for before in 0..3usize {
            let padded = [&vec![0u8; before][..], half.as_bytes()].concat();
            for engine in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
                let encoded = engine.encode(&padded);
                // The characters at both ends depend on what stands beside them.
                forms.push(encoded[(before * 4).div_ceil(3)..encoded.len() - 1].to_owned());
            }
        }
        // As a Debug of bytes would print it.
        forms.push(half.bytes().map(|b| b.to_string()).collect::<Vec<_>>().join(", "));
    }
    forms.sort();
    forms.dedup();
    forms.into_iter().map(String::into_bytes).collect()
}
