//! `foveate devices`: what there is and what it can do.

use crate::args::Devices;
use crate::failure::Failure;
use crate::output::{self, Align, Table};

/// Lists the devices.
pub fn run(arguments: &Devices) -> Result<(), Failure> {
    let devices = foveate_runtime::device::devices();
    if arguments.json {
        return output::say_json(&devices);
    }
    let mut table = Table::new([
        ("device", Align::Left),
        ("available", Align::Left),
        ("lanes", Align::Right),
        ("units", Align::Right),
        ("description", Align::Left),
    ]);
    for device in &devices {
        let number = |n: usize| if device.available { n.to_string() } else { "-".to_owned() };
        let available = if device.available { "yes" } else { "no" };
        let cells = [
            device.name.clone(),
            available.to_owned(),
            number(device.lanes),
            number(device.units),
            device.description.clone(),
        ];
        table.row(cells);
    }
    output::say(&table.render())
}
