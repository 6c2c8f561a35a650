// Which of the job queue's pages an address names.

import { formPage } from "./form.js";
import { jobPage } from "./job.js";
import { queuePage } from "./queue.js";
import { start } from "./shell.js";

function openPage(context) {
  document.getElementById("to-submit").hidden = context.me.role === "viewer";
  const job = location.pathname.match(/^\/jobs\/(\d+)\/?$/);
  if (job) jobPage(context, Number(job[1]));
  else if (location.pathname.startsWith("/submit")) formPage(context);
  else queuePage(context);
}

start({
  openPage,
  tokenHelp: [
    ["An operator makes one: ", "python -m services.jobs tokens make NAME --role submitter"],
    ["On the machine of a service that you started yourself, ", "python -m services.jobs up", " prints a link that lets you in."],
  ],
  elsewhere: (me) => [["Search", me.search_url]],
});
