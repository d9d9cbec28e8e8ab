//! The shell commands of README.md.

/// Every command of its `sh` blocks, in order.
pub(crate) fn commands() -> Vec<String> {
    let mut commands = Vec::new();
    let mut in_shell = false;
    for line in include_str!("../../README.md").lines().map(str::trim) {
        match line {
            "```sh" => in_shell = true,
            "```" => in_shell = false,
            _ if in_shell && !line.is_empty() && !line.starts_with('#') => commands.push(line.to_string()),
            _ => {}
        }
    }
    commands
}

/// What the README's demo command tells the program: the words behind `--`.
pub(crate) fn demo_arguments() -> Vec<String> {
    let commands = commands();
    let demo = commands.iter().find_map(|command| command.strip_prefix("cargo run --release -- "));
    let demo = demo.expect("the README shows how to run the demo");
    demo.split_whitespace().map(Into::into).collect()
}
