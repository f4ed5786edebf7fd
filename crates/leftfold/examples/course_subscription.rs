//! Course subscriptions: a rule about a course and a rule about a student, in one decision.
//!
//! In memory: `cargo run -p leftfold --example course_subscription`. In a directory: add `-- data`.

use std::{env, error::Error};

use leftfold::{Boundary, Event, ExecuteError, Model, Store};
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize, Clone)]
enum SchoolEvent {
    #[event("CourseOffered")]
    Offered {
        #[tag("course")]
        course: String,
        seats: u32,
    },
    #[event("StudentSubscribed")]
    Subscribed {
        #[tag("course")]
        course: String,
        #[tag("student")]
        student: String,
    },
}
use SchoolEvent::{Offered, Subscribed};

#[derive(Clone)]
struct Course {
    id: String,
    seats: Option<u32>,
    taken: u32,
}

impl Model for Course {
    type Event = SchoolEvent;

    fn boundary(&self) -> Boundary {
        Boundary::tag("course", &self.id)
    }
    fn apply(&mut self, event: &SchoolEvent) {
        match event {
            Offered { seats, .. } => self.seats = Some(*seats),
            Subscribed { .. } => self.taken += 1,
        }
    }
}

#[derive(Clone)]
struct Student {
    id: String,
    courses: Vec<String>,
}

impl Model for Student {
    type Event = SchoolEvent;

    fn boundary(&self) -> Boundary {
        Boundary::tag("student", &self.id).of_types(["StudentSubscribed"])
    }
    fn apply(&mut self, event: &SchoolEvent) {
        if let Subscribed { course, .. } = event {
            self.courses.push(course.clone());
        }
    }
}

fn course(id: &str) -> Course {
    Course {
        id: id.into(),
        seats: None,
        taken: 0,
    }
}
fn student(id: &str) -> Student {
    Student {
        id: id.into(),
        courses: Vec::new(),
    }
}

fn offer(it: &Course, seats: u32) -> Result<SchoolEvent, &'static str> {
    match it.seats {
        Some(_) => Err("the course is offered already"),
        None => Ok(Offered {
            course: it.id.clone(),
            seats,
        }),
    }
}

fn subscribe((course, student): &(Course, Student)) -> Result<SchoolEvent, &'static str> {
    let seats = course.seats.ok_or("there is no such course")?;
    if student.courses.contains(&course.id) {
        return Err("the student is in it already");
    }
    if course.taken >= seats {
        return Err("the course is full");
    }
    if student.courses.len() >= 2 {
        return Err("two courses are enough");
    }
    Ok(Subscribed {
        course: course.id.clone(),
        student: student.id.clone(),
    })
}

#[tokio::main(flavor = "current_thread")]
#[expect(clippy::print_stdout, reason = "an example shows what it does")]
async fn main() -> Result<(), Box<dyn Error>> {
    let store = match env::args().nth(1) {
        Some(directory) => Store::open(directory).await?,
        None => Store::memory(),
    };
    for name in ["algebra", "botany", "chemistry"] {
        match store.decide(course(name), |it| offer(it, 2)).await {
            Ok(_) => println!("{name}: offered"),
            Err(ExecuteError::Rejected(why)) => println!("{name}: {why}"),
            Err(error) => return Err(error.into()),
        }
    }
    for (who, what) in [
        ("ann", "algebra"),
        ("ann", "algebra"),
        ("ann", "botany"),
        ("ann", "chemistry"),
        ("bob", "algebra"),
        ("cem", "algebra"),
        ("cem", "drama"),
    ] {
        match store.decide((course(what), student(who)), subscribe).await {
            Ok(done) => println!("{who} in {what}: event {:?}", done.position),
            Err(ExecuteError::Rejected(why)) => println!("{who} in {what}: {why}"),
            Err(error) => return Err(error.into()),
        }
    }
    store.close().await?;
    Ok(())
}
