import { mount } from "svelte";

import App from "./App.svelte";
import "./app.css";

const target = document.getElementById("app");
target?.replaceChildren(); // an exported site says there what is wrong if this is never run
if (target) mount(App, { target });
