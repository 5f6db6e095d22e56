// Package hostids looks at which host ids the node's processes use: the user
// namespaces that map them and the credentials that have them. What it sees
// keeps a released range in quarantine (see Witness) and names foreign owners of
// ids.
//
// It reads /proc and changes nothing. Namespaces that no process is in do not
// count: a copy of a pin that another mount namespace holds does not keep ids
// from anybody.
package hostids
