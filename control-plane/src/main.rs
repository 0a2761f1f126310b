use std::process::ExitCode;

fn main() -> ExitCode {
    ringfence_control_plane::cli::run()
}
