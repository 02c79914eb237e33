//! Which git commit a directory is checked out at, read from `.git` without running git.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The commit of the checkout that the directory lies in, if it lies in one.
pub(super) fn commit(directory: &Path) -> Option<String> {
    let git = directory.ancestors().map(|ancestor| ancestor.join(".git")).find(|git| git.exists())?;
    let git = if git.is_file() { linked(&git)? } else { git };
    let head = read(&git.join("HEAD"))?;
    let Some(reference) = head.strip_prefix("ref: ") else { return commit_id(&head) };
    let common = read(&git.join("commondir")).map_or_else(|| git.clone(), |common| git.join(common));
    [&git, &common]
        .into_iter()
        .find_map(|directory| commit_id(&read(&directory.join(reference))?))
        .or_else(|| packed(&common.join("packed-refs"), reference))
}

/// A worktree or submodule: `.git` is a file that says where the rest is.
fn linked(file: &Path) -> Option<PathBuf> {
    let target = read(file)?;
    Some(file.parent()?.join(target.strip_prefix("gitdir: ")?))
}

fn packed(file: &Path, reference: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    text.lines().find_map(|line| match line.split_once(' ') {
        Some((id, name)) if name == reference => commit_id(id),
        _ => None,
    })
}

fn read(file: &Path) -> Option<String> {
    Some(fs::read_to_string(file).ok()?.trim().to_owned())
}

fn commit_id(text: &str) -> Option<String> {
    (matches!(text.len(), 40 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit()))
        .then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef01234567";

    fn write(root: &Path, file: &str, text: &str) {
        let file = root.join(file);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }

    #[test]
    fn a_branch_a_packed_branch_a_detached_head_and_a_worktree_are_read() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        fs::create_dir_all(root.join("home/routes")).unwrap();
        let home = root.join("home/routes");
        assert_eq!(commit(&home), None);
        write(root, "home/.git/HEAD", "ref: refs/heads/main\n");
        assert_eq!(commit(&home), None, "a branch without a commit");
        write(root, "home/.git/packed-refs", &format!("# pack-refs\n{ID} refs/heads/main\n"));
        assert_eq!(commit(&home).as_deref(), Some(ID));
        let newer = ID.replace('0', "f");
        write(root, "home/.git/refs/heads/main", &format!("{newer}\n"));
        assert_eq!(commit(&home), Some(newer.clone()), "a loose reference is newer than a packed one");
        write(root, "home/.git/worktrees/w/HEAD", "ref: refs/heads/main\n");
        write(root, "home/.git/worktrees/w/commondir", "../..\n");
        write(root, "w/.git", &format!("gitdir: {}\n", root.join("home/.git/worktrees/w").display()));
        assert_eq!(commit(&root.join("w")), Some(newer));
        write(root, "home/.git/HEAD", ID);
        assert_eq!(commit(&home).as_deref(), Some(ID));
        write(root, "home/.git/HEAD", "nonsense");
        assert_eq!(commit(&home), None);
    }
}
